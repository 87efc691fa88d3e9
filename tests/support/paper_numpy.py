"""MIAN as the paper writes it, sample by sample and in float64: slow, obvious, and sharing no code with the model.

Zhang et al. 2021; equation numbers are the paper's. It reads a contract, the options, a model's weights by name, and a batch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mian.contract import Contract, Field
from mian.contract.document import GROUPS
from mian.models import MianConfig

Array = npt.NDArray[np.float64]


class Paper:
    """The equations, over the weights of a trained model."""

    def __init__(self, contract: Contract, config: MianConfig, weights: Mapping[str, Any]) -> None:
        self.contract = contract
        self.config = config
        self.w = {name: np.asarray(weight, dtype=np.float64) for name, weight in weights.items()}
        # The order of what lies in one piece: groups' numeric fields, vocabularies as they are first met, fields of a group.
        self.numeric = [f.column for group in GROUPS for f in contract.group(group) if f.vocabulary is None]
        self.tables: dict[str, Array] = {}
        end = 0
        for name in dict.fromkeys(f.vocabulary for f in contract.fields if f.vocabulary is not None):
            start, end = end, end + contract.vocabulary(name).size
            self.tables[name] = self.w["embedding.table.weight"][start:end]

    def logits(self, batch: Mapping[str, Any]) -> Array:
        columns = {name: np.asarray(column) for name, column in batch.items()}
        rows = len(columns["behavior_length"])
        return np.array([self.logit({name: column[row] for name, column in columns.items()}) for row in range(rows)])

    def logit(self, sample: Mapping[str, Any]) -> float:
        candidate, behaviors, user, context = (
            sorted(self.contract.group(group), key=lambda field: field.vocabulary is None) for group in GROUPS
        )

        # 3.1: the candidate's fields are concatenated to one.
        e_i = np.concatenate([self.embed(f, sample[f.column]) for f in candidate])
        e_c = [self.embed(f, sample[f.column]) for f in context]
        e_u = [self.embed(f, sample[f.column]) for f in user]

        r: list[Array] = [e_i]  # Eq. 14, in its order
        if context:
            r.append(np.concatenate(e_c))
        if behaviors:
            length = int(sample["behavior_length"])
            e_b = [np.concatenate([self.embed(f, sample[f.column][t]) for f in behaviors]) for t in range(length)]
            width = self.config.embedding_dim * len(behaviors)
            r.append(sum(e_b, np.zeros(width)) / max(length, 1))
        if user:
            r.append(np.concatenate(e_u))
        if behaviors and "ibim" not in self.config.without:
            if e_b:
                h = self.transformer(self.with_positions(e_b))
                r.append(self.interaction("item_behaviors", e_i, h, shared=True))  # Eqs. 6-9
            else:
                r.append(np.zeros(len(e_i) + width))
        if user and "iuim" not in self.config.without:
            r.append(self.interaction("item_user", e_i, e_u, shared=False))  # Eqs. 10, 11
        if context and "icim" not in self.config.without:
            r.append(self.interaction("item_context", e_i, e_c, shared=False))  # Eqs. 12, 13
        R = np.concatenate(r) if "gim" in self.config.without else self.global_interaction(r)  # Eq. 15

        for layer in range(len(self.config.mlp)):  # Eq. 16; linear, ReLU and dropout each have a number
            R = np.maximum(self.w[f"mlp.{3 * layer}.weight"] @ R + self.w[f"mlp.{3 * layer}.bias"], 0)
        # Eq. 17 with W_q = [0; w] and b_q = [0; b]: softmax over "no click" and "click", and the logit of its second entry.
        classes = np.array([0.0, (self.w["logit.weight"] @ R + self.w["logit.bias"])[0]])
        p = np.exp(classes) / np.exp(classes).sum()
        return float(np.log(p[1] / p[0]))

    def embed(self, field: Field, value: Any) -> Array:
        """Eq. 2; a number is times a vector of its field."""
        if field.vocabulary is None:
            return float(value) * self.w["embedding.number_vectors"][self.numeric.index(field.column)]
        table = self.tables[field.vocabulary]
        one_hot = np.zeros(len(table))
        one_hot[int(value)] = 1
        return one_hot @ table

    def with_positions(self, e_b: list[Array]) -> list[Array]:
        if self.config.positions == "none":
            return e_b
        table = self.w["positions"]
        return [e + table[min(t, len(table) - 1)] for t, e in enumerate(e_b)]

    def transformer(self, x: list[Array]) -> list[Array]:
        if self.config.transformer == "none":
            return x
        if self.config.transformer == "post_ln":
            m_b = [self.layer_norm("transformer.attention_norm", e + a) for e, a in zip(x, self.multi_head(x), strict=True)]
            return [self.layer_norm("transformer.feed_forward_norm", m + self.ffn(m)) for m in m_b]
        l_b = [self.layer_norm("transformer.attention_norm", e) for e in x]
        m_b = [e + attended for e, attended in zip(x, self.multi_head(l_b), strict=True)]
        return [m + self.ffn(self.layer_norm("transformer.feed_forward_norm", m)) for m in m_b]

    def layer_norm(self, name: str, x: Array) -> Array:
        """Eq. 3."""
        normalized = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return self.w[f"{name}.weight"] * normalized + self.w[f"{name}.bias"]

    def multi_head(self, l_b: list[Array]) -> list[Array]:
        """Eq. 4."""
        heads = self.config.heads
        W_Q, W_K, W_V = np.split(self.w["transformer.query_key_value.weight"], 3)
        dim = len(W_Q) // heads
        outputs = []
        for l_query in l_b:
            joined = []
            for i in range(heads):
                rows = slice(i * dim, (i + 1) * dim)
                query = W_Q[rows] @ l_query
                scores = np.array([query @ (W_K[rows] @ l_key) / np.sqrt(dim) for l_key in l_b])
                weights = np.exp(scores) / np.exp(scores).sum()
                joined.append(sum(a * (W_V[rows] @ l_value) for a, l_value in zip(weights, l_b, strict=True)))
            outputs.append(self.w["transformer.attention_output.weight"] @ np.concatenate(joined))
        return outputs

    def ffn(self, m: Array) -> Array:
        """Eq. 5."""
        inner = np.maximum(0, self.w["transformer.inner.weight"] @ m + self.w["transformer.inner.bias"])
        return self.w["transformer.outer.weight"] @ inner + self.w["transformer.outer.bias"]

    def interaction(self, name: str, e_i: Array, vectors: list[Array], shared: bool) -> Array:
        """Eqs. 6-9 with one W for all vectors, Eqs. 10-13 with one each."""
        V = [np.concatenate([e_i, v]) for v in vectors]
        scores = []
        for n, V_n in enumerate(V):
            row = 0 if shared else n
            if f"{name}.bias" in self.w:
                W = np.concatenate([self.w[f"{name}.candidate_weight"][row], self.w[f"{name}.weight"][row]])
                scores.append(self.score(name, V_n @ W + self.w[f"{name}.bias"][row]))
            else:  # what would be the same for all n is left out
                scores.append(self.score(name, V_n[len(e_i) :] @ self.w[f"{name}.weight"][row]))
        alpha = np.exp(scores) / np.sum(np.exp(scores))
        return np.sum([a * V_n for a, V_n in zip(alpha, V, strict=True)], axis=0)

    def global_interaction(self, r: list[Array]) -> Array:
        """Eq. 15."""
        name = "global_interaction"
        bias = self.w[f"{name}.bias"]
        ends = np.cumsum([len(r_l) for r_l in r])[:-1]
        if self.config.global_fusion == "project":
            r = [P_l @ r_l for P_l, r_l in zip(np.split(self.w[f"{name}.projection"], ends, axis=1), r, strict=True)]
            W = list(self.w[f"{name}.weight"])
        else:
            W = np.split(self.w[f"{name}.weight"][0], ends)
        scores = [self.score(name, r_l @ W_l + b) for r_l, W_l, b in zip(r, W, bias, strict=True)]
        weights = np.exp(scores) / np.sum(np.exp(scores))
        weighted = [a * r_l for a, r_l in zip(weights, r, strict=True)]
        if self.config.global_fusion == "scaled_concat":
            weighted = [len(r) * part for part in weighted]
        return np.sum(weighted, axis=0) if self.config.global_fusion == "project" else np.concatenate(weighted)

    def score(self, name: str, raw: float) -> float:
        """The activation of Eqs. 8, 10, 13 and 15, or what stands in for it."""
        if self.config.score_activation == "none":
            return raw
        if self.config.score_activation == "tanh":
            return float(np.tanh(raw))
        return float(np.tanh(raw) / np.exp(self.w[f"{name}.score.log_temperature"][0]))
