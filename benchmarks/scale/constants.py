"""Every figure that the plan rests on, with its unit and where it is from. Nothing else in this package states a figure of the
world; what follows from these is computed.

`measured`: by us, on the machine of docs/LOG.md (two cores of an AMD EPYC, Zen 5). `published`: by others, named; we could not
repeat it, for no GPU and no second machine was at hand. `assumed`: a judgement, with a range.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["measured", "published", "assumed"]


@dataclass(frozen=True)
class Constant:
    """A figure. `low` and `high`: between which it may well lie; None where nothing better is known, or nothing depends on it."""

    what: str
    value: float
    unit: str
    kind: Kind
    source: str
    low: float | None = None
    high: float | None = None

    @property
    def range(self) -> tuple[float, float, float]:
        """Low, value, high; the value alone where no range is given."""
        return (
            self.value if self.low is None else self.low,
            self.value,
            self.value if self.high is None else self.high,
        )


# What is asked for: point 5 of the plan beyond one machine.
TOKENS = Constant(
    "tokens to learn from", 300e9, "tokens", "assumed",
    "the question; GPT-3's run, too (Brown et al., 2020)",
)  # fmt: skip
REQUESTS = Constant(
    "requests to answer", 1e6 / 3600, "1/s", "assumed",
    "the question: 1 M an hour, taken as the peak",
)  # fmt: skip
NODES = (1, 8, 64, 1024)

# A GPU node: 8 x H100 SXM.
GPUS = Constant("GPUs in a node", 8, "", "published", "DGX H100 data sheet, NVIDIA, 2023")
PEAK = Constant(
    "H100 SXM, dense bfloat16", 989.5e12, "FLOP/s", "published",
    "H100 data sheet, 2023 (as in training/devices.py)",
)  # fmt: skip
HBM = Constant("H100 SXM, memory bandwidth", 3.35e12, "B/s", "published", "H100 data sheet, 2023")
GPU_MEMORY = Constant("H100 SXM, memory", 80e9, "B", "published", "H100 data sheet, 2023")
NVLINK = Constant(
    "NVLink, one direction of a GPU", 450e9, "B/s", "published",
    "H100 data sheet, 2023: 900 GB/s in both directions",
)  # fmt: skip
RDMA = Constant(
    "network of a node, RDMA", 8 * 50e9, "B/s", "published",
    "400 Gb/s a GPU: Llama 3 (2024); torchtitan, benchmarks/llama3_h100_202412",
)  # fmt: skip
ETHERNET = Constant(
    "network of a node, plain", 12.5e9, "B/s", "assumed",
    "one port of 100 Gb/s: what a cheap rented node has",
)  # fmt: skip
LINK_SHARE = Constant(
    "share of a link that a collective reaches", 0.8, "", "assumed",
    "a blog expects 400-450 GB/s of 8 x 400 Gb/s (Saturn Cloud, 2026), which is more than the links carry one "
    "way",
    0.6, 0.95,
)  # fmt: skip
HOP = Constant(
    "latency of a collective, for each doubling of nodes", 20e-6, "s", "assumed",
    "order of magnitude",
    5e-6, 50e-6,
)  # fmt: skip
MFU = Constant(
    "share of the peak in training, network apart", 0.39, "", "published",
    "FSDP2 and torch.compile, Llama 3.1 8B, 8 and 128 H100: 33-39 % (torchtitan, 2024); ~50 %: llm.c, 1.6 B, "
    "8 H100 (Karpathy, 2024); low: assumed",
    0.30, 0.50,
)  # fmt: skip
OUR_MFU = Constant(
    "our step's share of the peak, two cores", 0.62, "", "measured",
    "LOG, Training: benchmark of a step (compiled, 13.9 M parameters)",
)  # fmt: skip
CPU_PEAK = Constant(
    "bfloat16 peak of two cores", 835e9, "FLOP/s", "measured",
    "docs/training.md, Speed; 835-955 on other occasions",
)  # fmt: skip
FAILURES = Constant(
    "failures of a node", 6.5e-3, "1/day", "published",
    "Kokolis et al., HPCA 2025 (at second hand): 2.34 and 6.50 per 1,000 node-days on two clusters of A100; high: their jobs "
    "of 1,024 GPUs failed every 7.9 h. Llama 3 (2024): 419 in 54 days on 2,048 nodes, 3.8 per 1,000",
    2.34e-3, 24 / 7.9 / 128,
)  # fmt: skip
GPU_HOUR = Constant(
    "price of a GPU node", 24.0, "$/h", "published",
    "8 H100: low 1.99 $ a GPU (Mercatus, 2026), Lambda about 24 (Disintermediate, 2026), AWS p5.48xlarge on "
    "demand 98.32 (the same; others say 80.62)",
    16.0, 98.32,
)  # fmt: skip
CPU_HOUR = Constant(
    "price of two cores", 0.09, "$/h", "assumed",
    "a cloud machine of 2 vCPUs and 4-8 GB; not looked up",
    0.03, 0.15,
)  # fmt: skip
STORE_MONTH = Constant(
    "object storage", 0.023, "$/GB-month", "assumed",
    "S3's list price as we remember it; not looked up",
)  # fmt: skip

# Batches.
CRITICAL_AT = Constant(
    "critical batch at 1.7 B tokens", 0.38e6, "tokens", "published",
    "Zhang et al., ICLR 2025 (85 M parameters, C4), read at second hand; it follows the data, hardly the "
    "model's size",
    0.2e6, 0.76e6,
)  # fmt: skip
CRITICAL_DATA = Constant("tokens of that run", 1.7e9, "tokens", "published", "the same: 20 a parameter")
CRITICAL_POWER = Constant("its growth with the tokens learned from, exponent", 0.47, "", "published", "the same")
CRITICAL_COST = Constant("more tokens needed at the critical batch", 0.2, "", "published", "the same: its definition")

# Checkpoints and restarts.
STATE_BYTES = Constant(
    "saved state, a parameter", 12, "B", "measured",
    "training/state.py: weights and AdamW's two moments, float32",
)  # fmt: skip
WRITE = Constant(
    "one process writing to shared storage", 1e9, "B/s", "assumed",
    "a fast network file system, one stream",
    0.3e9, 3e9,
)  # fmt: skip
HASH = Constant(
    "SHA-256, one core", 1.5e9, "B/s", "measured",
    "for this plan, while the machine was busy: 1.3-1.8 GB/s",
)  # fmt: skip
RESTART = Constant(
    "from a failure to the restarted command", 600, "s", "assumed",
    "something that watches and a spare node; by hand: an hour and more",
    300, 3600,
)  # fmt: skip

# Data.
TOKEN_BYTES = Constant(
    "text of a token, GPT-2's vocabulary", 70.6 / 16.6, "B", "measured",
    "the corpus of cpu_10min.toml: 70.6 MB, 16.6 M tokens",
)  # fmt: skip
TOKENIZE = Constant(
    "tokenising, two cores", 35e6, "B/s", "measured",
    "docs/training.md, Speed; LOG, Tokenising: 18.2 MB/s on one",
)  # fmt: skip
FILTER = Constant("filter by letters, one core", 36e6, "B/s", "measured", "LOG, Tokenising")
EXACT = Constant("exact repeats, one core", 18e6, "B/s", "measured", "LOG, Tokenising")
NEAR = Constant("near repeats, one core", 3.6e6, "B/s", "measured", "LOG, Tokenising: MinHash, 128 permutations")
NEAR_BYTES = Constant(
    "near repeats, memory a document", 1800, "B", "measured",
    "LOG, Training: a dictionary over sketches",
)  # fmt: skip
CRAWL_TOKENS = Constant(
    "tokens kept of a crawl", 15e12 / 96, "tokens", "published",
    "FineWeb (Penedo et al., 2024): 15 T of 96 crawls, English, GPT-2's tokens",
)  # fmt: skip
BEFORE_REPEATS = Constant(
    "text before repeats leave, to text kept", 36 / 15, "", "published",
    "FineWeb: 36 T after its first filters, read at second hand",
)  # fmt: skip
CRAWL_WET = Constant(
    "WET files of a crawl, gzip", 708e12 / 97, "B", "published",
    "708 TB of 97 crawls (eugenesiow/LLM-Insights, 2024). FineWeb itself read WARC",
)  # fmt: skip
GZIP = Constant("WET text to its gzip", 2.6, "", "assumed", "usual for text in many languages", 2.2, 3.0)
DOCUMENT_TOKENS = Constant(
    "tokens of a document", 650, "tokens", "assumed",
    "web pages after filters; FineWeb's order of magnitude",
    400, 1000,
)  # fmt: skip

# Serving on two cores: GPT-2's 124 M, int8.
DECODE = {
    1: Constant("decoding 1 stream, 124 M int8, two cores", 320, "tokens/s", "measured", "README's table"),
    8: Constant("the same, 8 streams", 1786, "tokens/s", "measured", "README's table"),
    32: Constant("the same, 32 streams", 2195, "tokens/s", "measured", "README's table"),
}
PREFILL = Constant("prompts, 124 M int8, two cores", 5845, "tokens/s", "measured", "README's table: a prompt of 512")
HTTP_SHARE = Constant(
    "what HTTP leaves of the engine's rate", 0.90, "", "measured",
    "LOG, the service: 0.88-0.95 at 8 and 32 streams",
    0.88, 0.95,
)  # fmt: skip
HTTP_MOST = Constant(
    "tokens through one server's HTTP process, at least", 10e3, "tokens/s", "measured",
    "LOG, the engine: the bundled model over HTTP, 32 streams, its client on the same two cores",
    10e3, 40e3,
)  # fmt: skip
CACHE = Constant("KV cache by default", 2**30, "B", "measured", "model/backend.py: slots that fit, 4 to 32")
CPU_START = Constant(
    "start of a server", 10, "s", "measured",
    "LOG, Container: healthy 10-12 s after its start, model in the image",
    3, 60,
)  # fmt: skip

# Serving on a GPU: no figure of ours.
HBM_SHARE = Constant(
    "share of the memory bandwidth that decoding reaches", 0.6, "", "assumed",
    "0.82 of a plain read in our kernels on a processor (LOG); PyTorch on a GPU: unknown",
    0.4, 0.8,
)  # fmt: skip
PREFILL_SHARE = Constant("share of the peak that prompts reach", 0.4, "", "assumed", "as in training", 0.2, 0.6)
STEP_COST = Constant(
    "a step's own time, beside the products", 3e-3, "s", "assumed",
    "scheduling and sampling; unmeasured on a GPU",
    1e-3, 10e-3,
)  # fmt: skip
MEMORY_SHARE = Constant(
    "GPU memory for weights and cache", 0.9, "", "assumed",
    "the rest: activations, graphs, the allocator",
    0.8, 0.95,
)  # fmt: skip
GPU_START = Constant(
    "start of a GPU replica on a node that is there", 60, "s", "assumed",
    "image and weights at hand; a new node: minutes more",
    30, 600,
)  # fmt: skip
VLLM = Constant(
    "vLLM, Llama 3.1 8B, one H100", 12.5e3, "tokens/s", "published",
    "Morph, 2026, of third parties; for comparison alone",
)  # fmt: skip
REPAIR = Constant("a failed node is replaced after", 4.0, "h", "assumed", "from a pool of the cloud's", 0.5, 24)

# Requests.
CHAT_PROMPT = Constant(
    "chat: prompt, median", 1020, "tokens", "published",
    "Azure LLM inference trace 2023, conversation (19,366 requests); counted by us. Mean 1,155",
)  # fmt: skip
CHAT_ANSWER = Constant("chat: answer, median", 129, "tokens", "published", "the same. Mean 211")
SHORT_PROMPT = Constant(
    "short: prompt, median", 128, "tokens", "assumed",
    "what fits GPT-2's context of 1,024",
    32, 512,
)  # fmt: skip
SHORT_ANSWER = Constant("short: answer, median", 64, "tokens", "assumed", "the same", 16, 128)
PROMPT_SPREAD = Constant(
    "spread of prompts, sigma of the logarithm", 0.5, "", "assumed",
    "short prompts; the trace's 0.99 has a hard upper end",
    0.3, 1.0,
)  # fmt: skip
ANSWER_SPREAD = Constant("spread of answers, sigma of the logarithm", 0.86, "", "published", "the same trace")
FRAME = Constant(
    "a streamed token, chat", 275, "B", "measured",
    "docs/http.md: a chunk of /v1/chat/completions; /generate: 40",
)  # fmt: skip


def constants() -> Iterator[Constant]:
    """All of them, in the order above."""
    for value in globals().values():
        if isinstance(value, Constant):
            yield value
        elif isinstance(value, dict):
            yield from (entry for entry in value.values() if isinstance(entry, Constant))
