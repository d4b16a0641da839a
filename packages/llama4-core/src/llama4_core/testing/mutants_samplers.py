"""Bugs of samplers."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from llama4_core.generation.sampling import Sampling, choose, probabilities
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant


class Broken:
    """A sampler with one bug.

    Args:
        sampling: how to draw.
        bug: which.
    """

    def __init__(self, sampling: Sampling, bug: str) -> None:
        self._bug = bug
        if bug == "top-k off by one" and sampling.top_k:
            sampling = dataclasses.replace(sampling, top_k=sampling.top_k + 1)
        elif bug == "ignores temperature" and sampling.temperature:
            sampling = dataclasses.replace(sampling, temperature=1.0)
        elif bug == "ignores min-p":
            sampling = dataclasses.replace(sampling, min_p=None)
        elif bug == "warm at zero" and sampling.temperature == 0:
            sampling = dataclasses.replace(sampling, temperature=1.0)
        self._sampling = sampling

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution."""
        bug, sampling = self._bug, self._sampling
        if bug == "keeps the unlikely":
            logits = logits.clamp(min=-30)
        if bug == "hides what is no number":
            logits = logits.nan_to_num(0.0, 1e4, -1e4)
        if bug == "all ties" and sampling.top_k and sampling.temperature:
            border = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.where(logits >= border, -math.inf)
            sampling = dataclasses.replace(sampling, top_k=None)
        if bug == "top-p before top-k" and sampling.top_k and sampling.top_p:
            first = dataclasses.replace(sampling, top_k=None, min_p=None)
            logits = logits.where(probabilities(logits, first) > 0, -math.inf)
            sampling = dataclasses.replace(sampling, top_p=None)
        if bug == "one token too few" and sampling.top_p and sampling.top_p < 1:
            kept = probabilities(logits, sampling)
            least = kept.where(kept > 0, 2).amin(-1, keepdim=True)
            kept = kept.where((kept > least) | (kept == kept.amax(-1, keepdim=True)), 0)
            return kept / kept.sum(-1, keepdim=True)
        found = probabilities(logits, sampling)
        if bug == "not normalised":
            return found / found.amax(-1, keepdim=True)
        return found.float() if bug == "single precision" else found

    def choose(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """One token per row."""
        bug, sampling = self._bug, self._sampling
        if bug == "last of equals" and sampling.temperature == 0:
            return logits.shape[-1] - 1 - logits.flip(-1).argmax(-1)
        if bug == "hides what is no number":
            logits = logits.nan_to_num(0.0, 1e4, -1e4)
        if bug == "filters shown only":
            sampling = Sampling(sampling.temperature)
        if bug == "keeps the unlikely":
            logits = logits.clamp(min=-30)
        if bug == "chance of its own":
            uniforms = torch.rand(len(uniforms), dtype=torch.float64)
        if bug == "one number for all":
            uniforms = uniforms[:1].expand(len(uniforms))
        if bug == "squared chance":
            uniforms = uniforms**2
        if bug == "works in place":
            logits.sub_(logits.amax(-1, keepdim=True))
        if bug == "end of the vocabulary" and sampling.temperature:
            mass = probabilities(logits, sampling).cumsum(-1)
            drawn = torch.searchsorted(mass, uniforms[:, None] + 1e-12, right=True)
            return drawn.squeeze(-1).clamp(max=logits.shape[-1] - 1)
        return choose(logits, sampling, uniforms)


def _mutant(check: str, bug: str) -> Mutant:
    subject = Subject("samplers", bug.replace(" ", "-"), lambda sampling: Broken(sampling, bug))
    return Mutant(bug, check, subject)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("distribution-as-documented", "ignores temperature"),
    _mutant("distribution-as-documented", "ignores min-p"),
    _mutant("distribution-as-documented", "top-k off by one"),
    _mutant("distribution-as-documented", "all ties"),
    _mutant("distribution-as-documented", "top-p before top-k"),
    _mutant("distribution-as-documented", "one token too few"),
    _mutant("distribution-as-documented", "not normalised"),
    _mutant("distribution-as-documented", "single precision"),
    _mutant("distribution-as-documented", "keeps the unlikely"),
    _mutant("greedy-is-the-largest", "last of equals"),
    _mutant("greedy-is-the-largest", "warm at zero"),
    _mutant("greedy-is-the-largest", "top-k off by one"),
    _mutant("draws-inside-the-support", "filters shown only"),
    _mutant("draws-inside-the-support", "end of the vocabulary"),
    _mutant("draws-inside-the-support", "keeps the unlikely"),
    _mutant("rows-alone", "chance of its own"),
    _mutant("rows-alone", "one number for all"),
    _mutant("rows-alone", "works in place"),
    _mutant("draws-follow-the-distribution", "squared chance"),
    _mutant("draws-follow-the-distribution", "filters shown only"),
    _mutant("bad-logits-are-refused", "hides what is no number"),
)
