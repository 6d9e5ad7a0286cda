"""The Kubernetes manifests against the API's own schemas, and against what the server needs of them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.http.middleware import OPEN_PATHS
from app.settings import ENV_PREFIX, load_settings

ROOT = Path(__file__).parents[2]
VERSIONS = ("1.27", "1.37")  # the oldest that the manifest promises, and the newest whose schema is here

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")


def resources(text: str) -> dict[str, dict[str, Any]]:
    """The documents of a stream of YAML by their kind."""
    found = list(yaml.safe_load_all(text))
    kinds = {document["kind"]: document for document in found}
    assert len(kinds) == len(found)
    return kinds


@pytest.fixture
def manifest(deploy: Path) -> dict[str, dict[str, Any]]:
    return resources((deploy / "kubernetes/base/homegrown.yaml").read_text("utf-8"))


@pytest.fixture
def pod(manifest: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return manifest["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["containers"][0]


def check(documents: dict[str, dict[str, Any]]) -> None:
    for document in documents.values():
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_manifests_are_valid(deploy: Path, manifest: dict[str, dict[str, Any]]) -> None:
    assert set(manifest) == {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    check(manifest)
    for more in ("base/autoscaling.yaml", "models.yaml"):
        check(resources((deploy / "kubernetes" / more).read_text("utf-8")))


def test_schema_finds_mistakes(manifest: dict[str, dict[str, Any]]) -> None:
    manifest["Deployment"]["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest)


@needs_kubectl
@pytest.mark.parametrize(("variant", "tag"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_variants_are_built(deploy: Path, variant: str, tag: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(deploy / "kubernetes" / variant)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    built = resources(done.stdout)
    check(built)
    spec = built["Deployment"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert container["image"] == f"registry.example.com/homegrown:{tag}"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (variant == "gpu")
    assert spec["strategy"]["type"] == ("Recreate" if variant == "gpu" else "RollingUpdate")


def test_selectors_meet_the_pods(manifest: dict[str, dict[str, Any]]) -> None:
    labels = manifest["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifest["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifest["Service"]["spec"]["selector"] == labels
    assert manifest["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert manifest["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels


def test_drain_fits_into_the_grace_period(pod: dict[str, Any], container: dict[str, Any]) -> None:
    drain = next(float(each["value"]) for each in container["env"] if each["name"] == "HOMEGROWN_DRAIN_TIMEOUT")
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert int(seconds) + drain + 5 <= pod["terminationGracePeriodSeconds"]
    readiness = container["readinessProbe"]
    # Out of the Service before the server refuses: no probe may be so slow that the pause is over first.
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < int(seconds)


def test_probes_ask_open_paths(container: dict[str, Any]) -> None:
    """Kubelets have no API key."""
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/ready", "livenessProbe": "/health", "readinessProbe": "/health"}
    assert set(paths.values()) <= OPEN_PATHS


def test_an_engine_that_is_restarted_has_as_long_as_at_the_first_start(container: dict[str, Any]) -> None:
    """/health fails until the model is loaded again: a pod killed before would never come back."""
    patience = {name: container[name]["periodSeconds"] * container[name]["failureThreshold"]
                for name in ("startupProbe", "livenessProbe")}  # fmt: skip
    assert patience["livenessProbe"] >= patience["startupProbe"]


def test_settings_exist(pod: dict[str, Any], container: dict[str, Any]) -> None:
    settings = load_settings(
        {each["name"].removeprefix(ENV_PREFIX).lower(): each["value"] for each in container["env"]}
        | {"host": "0.0.0.0"}
    )
    assert settings.locked
    # A Service called homegrown would set HOMEGROWN_PORT to an address for every container beside it.
    assert pod["enableServiceLinks"] is False
    assert settings.port == container["ports"][0]["containerPort"]
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    assert settings.api_keys_file is not None
    assert settings.api_keys_file.parent == mounts["keys"]
    assert "subPath" not in str(container["volumeMounts"])
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}


def test_container_is_the_images(pod: dict[str, Any], container: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    user = re.search(r"--uid (\d+)", dockerfile)
    assert user
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user[1])
    assert f"HOMEGROWN_PORT={container['ports'][0]['containerPort']}" in dockerfile
    models = re.search(r"HOMEGROWN_MODELS=(\S+)", dockerfile)
    assert models
    assert models[1] in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_pods_are_confined(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Pod Security Standards, profile "restricted", and a file system that nobody writes to."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["requests"]) & set(container["resources"]["limits"])
