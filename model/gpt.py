"""The transformer: Block, GPT (the language model), SequenceClassifier. Top to bottom as a token travels.

Shapes: B rows, T positions, D = d_model, V = vocab_size.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import Attention, CachedRows, Packed
from model.config import ModelConfig
from model.errors import ConfigError, ContextLengthError
from model.kv_cache import KVCache
from model.layers import make_mlp, make_norm, rope_table
from model.slot_rows import SlotRows


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x)) ("pre-norm", Radford et al., 2019)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config)
        self.mlp = make_mlp(config)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor] | None, rows: CachedRows | SlotRows | Packed | None
    ) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        x = x + self.attention(self.attention_norm(x), rope, rows)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """A decoder-only transformer with a language-model head, of either architecture; weights drawn afresh."""

    rope_cos: Tensor  # [context_length, head_dim] float32; llama only
    rope_sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False  # training: compute each layer again in the backward pass, and hold less
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        gpt2 = config.architecture == "gpt2"
        self.position_embedding = nn.Embedding(config.context_length, config.d_model) if gpt2 else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = make_norm(config)
        # A classifier's trunk has no language-model head: its checkpoint carries none.
        self.head = None if config.labels else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.tie_embeddings()
        if not gpt2:
            cos, sin = rope_table(config)
            # Not persistent: they follow from the config, and published checkpoints don't carry them.
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)
        self.reset_parameters()

    def tie_embeddings(self) -> None:
        """Make the head's weight the embedding's, where the config says so; again after either was replaced."""
        if self.head is not None and self.config.tie_embeddings:
            self.head.weight = self.token_embedding.weight

    def reset_parameters(self) -> None:
        """GPT-2's initialisation: normal(0, initializer_range), the two projections into the residual stream of each
        layer smaller by sqrt(2 n_layer) so that the stream's variance does not grow with depth; biases 0, gains 1."""
        std = self.config.initializer_range
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith(("attention.out", "mlp.down"))
                nn.init.normal_(module.weight, std=std / math.sqrt(2 * self.config.n_layer) if residual else std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def hidden_states(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        slots: Tensor | None = None,
        starts: Tensor | None = None,
        kv_len: int | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """The final norm's output, [B, T, D], for tokens [B, T] int64.

        `documents` [B, T] int64, without a cache: the number of the document each token lies in, never falling within a
        row. Tokens then see their own document alone, and positions begin at 0 in each.

        With a cache, row b continues slot slots[b] [B] int64, which already holds starts[b] tokens: keys and values
        are written behind them and attention sees both. `kv_len` is max(starts) + T; giving it saves a wait for the
        device. Raises ContextLengthError when a row would pass the context: before any tensor is touched.
        """
        batch, n_new = tokens.shape
        rows = None
        if cache is None:
            self._check_length(n_new, self.config.context_length)
            positions = torch.arange(n_new, device=tokens.device)[None]  # [1, T]
            if documents is not None:
                rows = Packed.locate(documents)
                positions = rows.positions  # [B, T]
        else:
            slots = torch.arange(batch, device=tokens.device) if slots is None else slots
            starts = torch.zeros(batch, dtype=torch.long, device=tokens.device) if starts is None else starts
            length = int(starts.max()) + n_new if kv_len is None else kv_len
            self._check_length(length, cache.context)
            rows = CachedRows.locate(cache, slots, starts, n_new, length)
            positions = rows.positions  # [B, T]
        return self._through(self.token_embedding(tokens), positions, rows)

    def hidden_rows(self, tokens: Tensor, rows: SlotRows) -> Tensor:
        """The final norm's output, [B, T, D] float32, for tokens [B, T] int64 that continue slots as `rows` says; lengths are
        the caller's to check. The residual stream is float32 whatever the weights are."""
        return self._through(self.token_embedding(tokens).float(), rows.positions, rows)

    def _through(self, x: Tensor, positions: Tensor, rows: CachedRows | SlotRows | Packed | None) -> Tensor:
        """The embedded tokens x [B, T, D] through all layers and the final norm."""
        rope = None
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        else:
            rope = self.rope_cos[positions][:, None], self.rope_sin[positions][:, None]  # each [B or 1, 1, T, K]
        x = self.dropout(x)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, rope, rows, use_reentrant=False)
            else:
                x = block(x, rope, rows)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V], unnormalised log-probabilities of the next token. ConfigError on a classifier's
        trunk."""
        if self.head is None:
            raise ConfigError("this model is a classifier: it has no language-model head to generate with")
        return self.head(hidden)

    def forward(self, tokens: Tensor, **cached: object) -> Tensor:
        """Logits [B, T, V] of tokens [B, T]; keyword arguments as for `hidden_states`."""
        return self.logits(self.hidden_states(tokens, **cached))  # type: ignore[arg-type]

    def _check_length(self, length: int, limit: int) -> None:
        if length > limit:
            raise ContextLengthError(
                f"{length} tokens don't fit the model's context of {limit} tokens; shorten the text", length, limit
            )


class SequenceClassifier(nn.Module):
    """One score per label, read from the hidden state of each row's last token (not of its padding)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = GPT(config)
        self.score = nn.Linear(config.d_model, len(config.labels), bias=False)
        nn.init.normal_(self.score.weight, std=config.initializer_range)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens [B, T] int64, padded on the right; lengths [B] int64, each at least 1 -> scores [B, n_labels]."""
        hidden = self.trunk.hidden_states(tokens)  # causal: padding on the right changes nothing before it
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]  # [B, D]
        return self.score(last)
