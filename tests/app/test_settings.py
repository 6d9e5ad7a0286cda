import pytest

from app.settings import ENV_PREFIX, Settings, is_loopback, load_settings
from model.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    import os

    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path):
    def write(text: str):
        path = tmp_path / "homegrown.toml"
        path.write_text(text)
        return path

    return write


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(monkeypatch, toml):
    path = toml("port = 1\nmax_slots = 2\nmax_queue = 3\n")
    monkeypatch.setenv("HOMEGROWN_PORT", "10")
    monkeypatch.setenv("HOMEGROWN_MAX_SLOTS", "20")
    settings = load_settings({"port": "100", "max_slots": None}, path)
    assert (settings.port, settings.max_slots, settings.max_queue, settings.host) == (100, 20, 3, "127.0.0.1")


def test_an_empty_variable_is_unset(monkeypatch):
    monkeypatch.setenv("HOMEGROWN_API_KEY", "")
    monkeypatch.setenv("HOMEGROWN_MAX_SLOTS", "")
    assert load_settings() == load_settings({})
    assert load_settings().api_key is None


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"port": "x"}, "--port"),
        ({"port": 70000}, "--port"),
        ({"dtype": "float8"}, "--dtype"),
        ({"max_queue_wait": "nan"}, "--max-queue-wait"),
        ({"max_slots": 0}, "--max-slots"),
        ({"drain_timeout": -1}, "--drain-timeout"),
        ({"api_key": "with space"}, "--api-key"),
        ({"api_key": "päss"}, "--api-key"),
        ({"model": ""}, "--model"),
        ({"log_level": "loud"}, "--log-level"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_source(monkeypatch, toml, overrides, names):
    with pytest.raises(ConfigError) as caught:
        load_settings(overrides)
    assert str(caught.value).startswith(names)
    assert "\n" not in str(caught.value)
    ((field, value),) = overrides.items()
    monkeypatch.setenv(f"HOMEGROWN_{field.upper()}", str(value) or " ")
    if value != "":
        with pytest.raises(ConfigError, match=f"^HOMEGROWN_{field.upper()}: "):
            load_settings()


def test_a_mistake_in_the_file_names_the_file_and_the_key(toml):
    path = toml('max_slots = "many"')
    with pytest.raises(ConfigError) as caught:
        load_settings({}, path)
    assert str(caught.value).startswith(f"{path}: max_slots: ")
    assert "'many'" in str(caught.value)


def test_a_key_is_never_shown():
    key = "very secret key"
    with pytest.raises(ConfigError) as caught:
        load_settings({"api_key": key})
    assert key not in str(caught.value)
    settings = load_settings({"api_key": "sk-1234567"})
    assert "sk-1234567" not in repr(settings)
    assert "sk-1234567" not in str(settings.model_dump(mode="json"))


def test_an_unknown_key_in_the_file_lists_near_names(toml):
    with pytest.raises(ConfigError, match="unknown setting 'max_slot'; did you mean max_slots"):
        load_settings({}, toml("max_slot = 3"))
    with pytest.raises(ConfigError, match="unknown setting 'zzz'; there are: model, adapters_dir"):
        load_settings({}, toml("zzz = 3"))


def test_a_file_that_is_not_there_or_not_toml(toml, tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load_settings({}, tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        load_settings({}, toml("port ="))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_listening_to_others_needs_a_key_or_consent(host):
    with pytest.raises(ConfigError, match="api_key") as caught:
        load_settings({"host": host})
    assert "\n" not in str(caught.value)
    assert load_settings({"host": host, "api_key": "k"}).host == host
    assert load_settings({"host": host, "insecure": True}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone_needs_none(host):
    assert is_loopback(host)
    assert load_settings({"host": host}).api_key is None


def test_origins_in_every_form(monkeypatch, toml):
    expected = ["https://a.example", "https://b.example"]
    assert load_settings({"cors_origins": "https://a.example, https://b.example,"}).cors_origins == expected
    assert load_settings({}, toml(f"cors_origins = {expected}".replace("'", '"'))).cors_origins == expected
    monkeypatch.setenv("HOMEGROWN_CORS_ORIGINS", ",".join(expected))
    assert load_settings().cors_origins == expected


def test_several_keys_in_one_setting(monkeypatch, toml):
    assert load_settings({"api_key": "sk-a, sk-b,"}).api_keys == ["sk-a", "sk-b"]
    monkeypatch.setenv("HOMEGROWN_API_KEY", "sk-c")
    assert load_settings().api_keys == ["sk-c"]
    monkeypatch.delenv("HOMEGROWN_API_KEY")
    assert load_settings({}, toml('api_key = "sk-d,sk-e"')).api_keys == ["sk-d", "sk-e"]
    assert load_settings().api_keys == []
    assert not load_settings().locked
    for wrong in (",", "good,b c", "good,,ä"):
        with pytest.raises(ConfigError, match=r"^--api-key: ") as caught:
            load_settings({"api_key": wrong})
        assert "good" not in str(caught.value)


def test_a_file_of_keys_locks_too(tmp_path):
    assert load_settings({"host": "0.0.0.0", "api_keys_file": str(tmp_path / "keys")}).locked


def test_aliases_in_every_form(monkeypatch, toml):
    expected = {"gpt-4o": "homegrown-base", "fast": "an/adapter"}
    assert load_settings({"aliases": "gpt-4o=homegrown-base, fast = an/adapter,"}).aliases == expected
    monkeypatch.setenv("HOMEGROWN_ALIASES", "gpt-4o=homegrown-base,fast=an/adapter")
    assert load_settings().aliases == expected
    monkeypatch.delenv("HOMEGROWN_ALIASES")
    assert load_settings({}, toml('[aliases]\n"gpt-4o" = "homegrown-base"\nfast = "an/adapter"\n')).aliases == expected
    for wrong in ("a", "=b", "a=", "a=b,a=c", "a=b\x00", "a" * 257 + "=b"):
        with pytest.raises(ConfigError, match=r"^--aliases: "):
            load_settings({"aliases": wrong})


def test_every_field_has_a_description_and_takes_a_string():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
