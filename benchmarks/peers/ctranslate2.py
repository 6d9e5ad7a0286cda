"""CTranslate2: its own converted model, one batch over all prompts."""

import json
from typing import Any

from benchmarks.peers import Job


class CTranslate2:
    """See Engine."""

    def __init__(self, job: Job) -> None:
        import ctranslate2

        self._generator = ctranslate2.Generator(
            str(job.artifact),
            device=job.device,
            compute_type=job.of.variant,
            inter_threads=1,
            intra_threads=job.threads,
        )
        # It takes tokens by their text.
        vocab = json.loads((job.source / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
        self._texts = {token: text for text, token in vocab.items()}

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        """See Engine."""
        results = self._generator.generate_batch(
            [[self._texts[token] for token in prompt] for prompt in prompts],
            max_length=n_new, min_length=n_new, beam_size=1, sampling_topk=1, include_prompt_in_result=False, end_token=[],
            max_batch_size=0,
        )  # fmt: skip
        return [result.sequences_ids[0] for result in results]

    def about(self) -> dict[str, Any]:
        """See Engine."""
        import ctranslate2

        return {"version": ctranslate2.__version__, "compute_type": self._generator.compute_type}


def prepare(job: Job) -> None:
    """Convert the model to `job.artifact`."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(job.source)).convert(str(job.artifact), quantization=job.of.variant, force=True)


load = CTranslate2
