"""The peers of MIAN as their papers write them, sample by sample and in float64: slow, obvious, and sharing no code with the models.

For what DeepCTR-Torch does not have, or has otherwise: numbers as vectors, fields that candidate and behaviors do not share, DIEN's own
attention and auxiliary loss, the stacked DCN-V2.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mian.contract import Contract, Field
from mian.contract.document import GROUPS

Array = npt.NDArray[np.float64]
Sample = Mapping[str, Any]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class Peers:
    """The papers' equations, over the weights of a model in evaluation mode."""

    def __init__(self, contract: Contract, config: Any, weights: Mapping[str, Any]) -> None:
        self.contract = contract
        self.config = config
        self.w = {name: np.asarray(weight, dtype=np.float64) for name, weight in weights.items()}

    def logits(self, model: str, batch: Mapping[str, Any]) -> Array:
        columns = {name: np.asarray(column) for name, column in batch.items()}
        rows = len(columns["behavior_length"])
        return np.array([getattr(self, model)({name: of[row] for name, of in columns.items()}) for row in range(rows)])

    # One vector a field

    def fields(self, group: str) -> list[Field]:
        return sorted(self.contract.group(group), key=lambda field: field.vocabulary is None)

    def vector(self, place: str, field: Field, value: Any, shared: bool = True) -> Array:
        """A row of the vocabulary's table, or of the field's own; a number times its field's vector."""
        if field.vocabulary is None:
            numeric = [f.column for group in GROUPS for f in self.contract.group(group) if f.vocabulary is None]
            return float(value) * self.w[f"{place}.number_vectors"][numeric.index(field.column)]
        before = 0
        seen = set()
        for other in self.contract.fields:
            if other.vocabulary is None:
                continue
            name, wanted = (other.vocabulary, field.vocabulary) if shared else (other.column, field.column)
            if name == wanted:
                break
            if name not in seen:
                seen.add(name)
                before += self.contract.vocabulary(other.vocabulary).size
        return self.w[f"{place}.table.weight"][before + int(value)]

    def behaviors(self, place: str, sample: Sample, shared: bool = True) -> list[list[Array]]:
        """By behavior, the most recent first, a vector a field."""
        fields = self.fields("behaviors")
        return [
            [self.vector(place, field, sample[field.column][t], shared) for field in fields]
            for t in range(int(sample["behavior_length"]))
        ]

    def field_vectors(self, place: str, sample: Sample, shared: bool = True) -> list[Array]:
        """Candidate, history as means, user, context."""
        found: list[Array] = []
        for group in GROUPS:
            fields = self.fields(group)
            if group == "behaviors":
                history = self.behaviors(place, sample, shared)
                zero = np.zeros(self.w[f"{place}.table.weight"].shape[1])
                found += [sum((entry[n] for entry in history), zero) / max(len(history), 1) for n in range(len(fields))]
            else:
                found += [self.vector(place, field, sample[field.column], shared) for field in fields]
        return found

    # Parts of networks

    def linear(self, name: str, sample: Sample) -> float:
        return float(
            self.w[f"{name}.bias"][0] + sum(v[0] for v in self.field_vectors(f"{name}.weights.embedding", sample, shared=False))
        )

    def mlp(self, name: str, x: Array, activation: str = "relu") -> Array:
        number = 0
        while f"{name}.{number}.weight" in self.w:
            x = self.activate(
                f"{name}.{number + 1}", self.w[f"{name}.{number}.weight"] @ x + self.w[f"{name}.{number}.bias"], activation
            )
            number += 3
        return x

    def activate(self, name: str, s: Array, activation: str) -> Array:
        if activation == "relu":
            return np.maximum(s, 0)
        if activation == "sigmoid":
            return sigmoid(s)
        mean, variance = self.w[f"{name}.normalization.moving"]
        p = sigmoid((s - mean) / np.sqrt(variance + 1e-8))
        return p * s + (1 - p) * self.w[f"{name}.alpha"] * s

    def output(self, name: str, x: Array) -> float:
        return float((self.w[f"{name}.weight"] @ x + self.w.get(f"{name}.bias", 0))[0])

    # Models

    def lr(self, sample: Sample) -> float:
        return self.linear("linear", sample)

    def fm(self, sample: Sample) -> float:
        """Rendle 2010, Eq. 1, pair by pair."""
        v = self.field_vectors("fields.embedding", sample)
        return self.linear("linear", sample) + sum(float(v[i] @ v[j]) for i in range(len(v)) for j in range(i + 1, len(v)))

    def wide_deep(self, sample: Sample) -> float:
        a = self.mlp("deep", np.concatenate(self.field_vectors("fields.embedding", sample)))
        return self.linear("wide", sample) + self.output("deep_logit", a)

    def deepfm(self, sample: Sample) -> float:
        a = self.mlp("deep", np.concatenate(self.field_vectors("fields.embedding", sample)))
        return self.fm(sample) + self.output("deep_logit", a)

    def dcn(self, sample: Sample) -> float:
        x_0 = x = np.concatenate(self.field_vectors("fields.embedding", sample))
        for layer, w in enumerate(self.w["cross.weight"]):
            x = np.outer(x_0, x) @ w + self.w[f"cross.bias.{layer}"] + x
        return self.output("logit", np.concatenate([x, self.mlp("deep", x_0)]))

    def dcn_v2(self, sample: Sample) -> float:
        x_0 = x = np.concatenate(self.field_vectors("fields.embedding", sample))
        for layer, W in enumerate(self.w["cross.weight"]):
            x = x_0 * (W @ x + self.w[f"cross.bias.{layer}"]) + x
        if self.config.structure == "stacked":
            return self.output("logit", self.mlp("deep", x))
        return self.output("logit", np.concatenate([x, self.mlp("deep", x_0)]))

    def xdeepfm(self, sample: Sample) -> float:
        vectors = self.field_vectors("fields.embedding", sample)
        cin = self.cin(vectors, self.config.cin_activation, self.config.cin_split_half)
        deep = self.output("deep_logit", self.mlp("deep", np.concatenate(vectors)))
        return self.linear("linear", sample) + cin + deep

    def cin(self, vectors: list[Array], activation: str, split_half: bool) -> float:
        rows, p = vectors, []
        for layer in range(len(self.config.cin)):
            W = self.w[f"cin.weights.{layer}"]
            pair_weights = W.reshape(len(W), len(rows), len(vectors))
            rows = [
                sum(W_h[i, j] * rows[i] * vectors[j] for i in range(len(rows)) for j in range(len(vectors)))
                for W_h in pair_weights
            ]
            if activation == "relu":
                rows = [np.maximum(row, 0) for row in rows]
            out = rows
            if split_half and layer < len(self.config.cin) - 1:
                rows, out = rows[: len(rows) // 2], rows[len(rows) // 2 :]
            p += [row.sum() for row in out]
        return self.output("cin_logit", np.array(p))

    def din(self, sample: Sample) -> float:
        q = [self.vector("embedding", field, sample[field.column]) for field in self.fields("candidate")]
        history = self.behaviors("embedding", sample)
        weights = [self.unit(q, k) for k in history]
        if self.config.softmax and history:
            weights = list(np.exp(weights) / np.exp(weights).sum())
        width = len(self.fields("behaviors")) * self.config.embedding_dim
        v_u = sum((a * np.concatenate(k) for a, k in zip(weights, history, strict=True)), np.zeros(width))
        return self.last(q, v_u, sample)

    def unit(self, q: list[Array], k: list[Array]) -> float:
        """Difference and product of the fields of one vocabulary."""
        candidate, behavior = self.fields("candidate"), self.fields("behaviors")
        pairs = []
        for field in self.contract.group("behaviors"):
            same = [f for f in self.contract.group("candidate") if f.vocabulary == field.vocabulary and f.vocabulary is not None]
            named = [f for f in same if f.name == field.name] or same
            if named:
                pairs.append((q[candidate.index(named[0])], k[behavior.index(field)]))
        s = self.w["unit.candidate_projection.weight"] @ np.concatenate(q) + self.w["unit.candidate_projection.bias"]
        s = s + self.w["unit.behavior_projection.weight"] @ np.concatenate(k)
        if pairs:
            s = s + self.w["unit.difference_projection.weight"] @ np.concatenate([q_i - k_i for q_i, k_i in pairs])
            s = s + self.w["unit.product_projection.weight"] @ np.concatenate([q_i * k_i for q_i, k_i in pairs])
        s = self.activate("unit.activation", s, self.config.unit_activation)
        return self.output("unit.score", self.mlp("unit.mlp", s, self.config.unit_activation))

    def last(self, q: list[Array], history: Array, sample: Sample) -> float:
        others = [
            self.vector("embedding", field, sample[field.column]) for group in ("user", "context") for field in self.fields(group)
        ]
        return self.output("logit", self.mlp("mlp", np.concatenate([*q, history, *others]), self.config.activation))

    def dien(self, sample: Sample) -> float:
        e_a = [self.vector("embedding", field, sample[field.column]) for field in self.fields("candidate")]
        h = self.interests(sample)
        state = np.zeros(len(self.fields("behaviors")) * self.config.embedding_dim)
        if h:
            scores = np.array([h_t @ self.w["attention.weight"] @ np.concatenate(e_a) for h_t in h])  # Eq. 14
            a = np.exp(scores) / np.exp(scores).sum()
            for h_t, a_t in zip(h, a, strict=True):
                state = self.gru("evolution", h_t, state, a_t)
        return self.last(e_a, state, sample)

    def interests(self, sample: Sample) -> list[Array]:
        """The states, the oldest first."""
        state, found = np.zeros(len(self.fields("behaviors")) * self.config.embedding_dim), []
        for entry in reversed(self.behaviors("embedding", sample)):
            state = self.gru("extractor", np.concatenate(entry), state, 1.0)
            found.append(state)
        return found

    def gru(self, name: str, i: Array, h: Array, a: float) -> Array:
        """Eqs. 2-5; with attention, its share of the update gate."""
        W_r, W_u, W_h = np.split(self.w[f"{name}.inputs.weight"], 3)
        b_r, b_u, b_h = np.split(self.w[f"{name}.inputs.bias"], 3)
        U_r, U_u, U_h = np.split(self.w[f"{name}.recurrent"], 3)
        u = sigmoid(W_u @ i + U_u @ h + b_u)
        r = sigmoid(W_r @ i + U_r @ h + b_r)
        new = np.tanh(W_h @ i + r * (U_h @ h) + b_h)
        return (1 - a * u) * h + a * u * new

    def auxiliary_loss(self, batch: Mapping[str, Any], negatives: Array) -> float:
        """Eq. 6, the mean over all behaviors that came next; ``negatives`` are by sample and step, the most recent first."""
        columns = {name: np.asarray(column) for name, column in batch.items()}
        losses = []
        for row in range(len(columns["behavior_length"])):
            sample = {name: of[row] for name, of in columns.items()}
            h = self.interests(sample)
            e = [np.concatenate(entry) for entry in reversed(self.behaviors("embedding", sample))]
            for t in range(len(h) - 1):
                other = negatives[row, len(h) - 1 - (t + 1)]
                loss = -np.log(self.came_next(h[t], e[t + 1]))
                if (other != e[t + 1]).any():
                    loss -= np.log(1 - self.came_next(h[t], other))
                losses.append(loss)
        return float(np.mean(losses))

    def came_next(self, h: Array, e: Array) -> float:
        if self.config.auxiliary == "inner_product":
            return float(sigmoid(h @ e))
        return float(sigmoid(self.output("auxiliary.1", self.mlp("auxiliary.0", np.concatenate([h, e]), "sigmoid"))))
