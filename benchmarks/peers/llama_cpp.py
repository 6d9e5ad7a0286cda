"""llama.cpp through llama-cpp-python's C bindings: one context with a sequence for each prompt."""

import ctypes
import json
from typing import Any

from benchmarks.peers import Job

_BATCH = 2048  # tokens of a call


class LlamaCpp:
    """See Engine."""

    def __init__(self, job: Job) -> None:
        import llama_cpp

        self._api, self._job = llama_cpp, job
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)  # must live as long as the library may log
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            str(job.artifact).encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise SystemExit(f"llama.cpp can't load {job.artifact}")
        self._context: Any = None
        self._sequences = 0
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        """See Engine."""
        self._fit(len(prompts), max(len(prompt) for prompt in prompts) + n_new)
        answers: list[list[int]] = [[] for _ in prompts]
        waiting: list[tuple[int, int, int, bool]] = []  # sequence, token, position, whether its logits are wanted
        for sequence, prompt in enumerate(prompts):
            if len(waiting) + len(prompt) > _BATCH:
                self._run(waiting, answers)
                waiting = []
            last = len(prompt) - 1
            waiting += [(sequence, token, i, i == last) for i, token in enumerate(prompt)]
        self._run(waiting, answers)
        for step in range(1, n_new):
            rows = [(i, answers[i][-1], len(prompt) + step - 1, True) for i, prompt in enumerate(prompts)]
            self._run(rows, answers)
        return answers

    def _fit(self, sequences: int, length: int) -> None:
        """A context for so many sequences, empty: as small as its caller needs, or it would search cells in vain."""
        api, share = self._api, -(-length // 256) * 256
        if self._context is None or self._sequences != sequences or api.llama_n_ctx(self._context) < sequences * share:
            if self._context is not None:
                api.llama_free(self._context)
            params = api.llama_context_default_params()
            params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = sequences * share, _BATCH, 512, sequences
            params.n_threads = params.n_threads_batch = self._job.threads
            self._context, self._sequences = api.llama_init_from_model(self._model, params), sequences
            if not self._context:
                raise SystemExit(f"llama.cpp has no memory for {sequences} sequences of {share} tokens")
        api.llama_memory_clear(api.llama_get_memory(self._context), True)

    def _run(self, rows: list[tuple[int, int, int, bool]], answers: list[list[int]]) -> None:
        """One call over the rows; the likeliest token behind each that wants one goes to its sequence's answer."""
        import numpy as np

        batch, api = self._batch, self._api
        for i, (sequence, token, position, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        batch.n_tokens = len(rows)
        status = api.llama_decode(self._context, batch)
        if status:
            raise SystemExit(f"llama_decode gave up with {status}")
        for i, (sequence, _, _, wanted) in enumerate(rows):
            if wanted:
                logits = np.ctypeslib.as_array(api.llama_get_logits_ith(self._context, i), (self._job.vocab_size,))
                answers[sequence].append(int(logits.argmax()))

    def about(self) -> dict[str, Any]:
        """See Engine."""
        return {"version": self._api.__version__, "kernels": self._api.llama_print_system_info().decode()}


def prepare(job: Job) -> None:
    """Write the model as GGUF, matrices in the variant's format, to `job.artifact`."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((job.source / "config.json").read_text("utf-8"))
    if config["model_type"] != "gpt2":
        raise SystemExit("the llama.cpp settings convert models of GPT-2's kind only")
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(job.source / "model.safetensors").items()}
    kind = job.of.variant.upper()
    partial = job.artifact.with_suffix(".part")
    writer = gguf.GGUFWriter(partial, "gpt2")
    names = {"F32": "ALL_F32"}
    writer.add_file_type(gguf.LlamaFileType[names.get(kind, f"MOSTLY_{kind}")])
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    _add_vocabulary(writer, job)
    for name, tensor in tensors.items():
        ours = _gguf_name(name)
        if ours is None:
            continue
        matrix = tensor.ndim == 2 and not name.startswith("wpe")
        if matrix and name != "wte.weight":
            tensor = tensor.T  # published as [in, out]
        tensor = tensor.astype("float32")
        form = gguf.GGMLQuantizationType[kind]
        if matrix and kind != "F32":
            writer.add_tensor(ours, gguf.quants.quantize(tensor, form), raw_dtype=form)
        else:
            writer.add_tensor(ours, tensor.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(job.artifact)


_TOP = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
_BLOCK = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def _gguf_name(name: str) -> str | None:
    """`h.0.attn.c_attn.weight` -> `blk.0.attn_qkv.weight`; None for what is no tensor of its own (the tied head)."""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("h."):
        _, layer, part = stem.split(".", 2)
        return f"blk.{layer}.{_BLOCK[part]}.{kind}" if part in _BLOCK else None
    return f"{_TOP[stem]}.{kind}" if stem in _TOP else None


def _add_vocabulary(writer: Any, job: Job) -> None:
    import gguf

    data = json.loads((job.source / "tokenizer.json").read_text("utf-8"))
    vocab: dict[str, int] = dict(data["model"]["vocab"])
    special = {entry["id"]: entry["content"] for entry in data["added_tokens"]}
    texts = [text for text, _ in sorted(vocab.items(), key=lambda item: item[1])]
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(texts))]
    merges = [entry if isinstance(entry, str) else " ".join(entry) for entry in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(max(special))


load = LlamaCpp
