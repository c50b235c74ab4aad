"""Words that decide: what each token of a text adds to a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dlframe.types import Dataset, Ragged

if TYPE_CHECKING:
    from dlframe.plots import ReadText
    from dlframe.tasks.base import Scores, Task

STEPS = 16
"""Points between the baseline and the text."""
LONGEST = 160
"""Tokens of a text that is explained: gradients of longer ones take long."""


def integrated_gradients(model: nn.Module, embedding: nn.Embedding, tokens: Tensor, label: int, steps: int = STEPS) -> Tensor:
    """Return what each token (length,) adds to the log odds of a class, (length,).

    Sundararajan, Taly and Yan 2017 (arXiv 1703.01365), from embeddings of zeros to those of the text, by the midpoint rule:
    the sum is the difference of the log odds at both ends, up to the error of the rule.

    Args:
        model: Model of texts, from `Ragged` tokens to logits.
        embedding: Embedding that the model reads the tokens with.
        tokens: Tokens of one text.
        label: The class.
        steps: Number of points.
    """
    kept: list[Tensor] = []
    fractions = (torch.arange(steps, device=tokens.device, dtype=torch.float32) + 0.5) / steps

    def scale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        scaled = (output * fractions.to(output.dtype).view(-1, 1, 1)).detach().requires_grad_()
        kept[:] = [scaled, output.detach()]
        return scaled

    batch = Ragged(tokens.repeat(steps), torch.arange(steps + 1, device=tokens.device) * len(tokens))
    hook = embedding.register_forward_hook(scale)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logits = model(batch).log_softmax(1)
            odds = logits[:, label] - torch.log1p(-logits[:, label].exp().clamp(max=1 - 1e-6))
            (gradient,) = torch.autograd.grad(odds.sum(), kept[0])
    finally:
        hook.remove()
    return (gradient.mean(0) * kept[1][0]).sum(1)


def deciding_words(task: Task, scores: Scores, dataset: Dataset, count: int = 3) -> list[ReadText]:
    """Return sample texts with the contributions of their words: the surest right predictions, and the surest errors.

    A model has `token_embedding`, for integrated gradients, or `contributions(tokens, label)` of its own; of others, and of
    what is no text, there are none.
    """
    from dlframe.plots import ReadText

    model: Any = task.model
    explains = hasattr(model, "contributions") or hasattr(model, "token_embedding")
    names = task.spec.of_kind("tokens", task.spec.inputs)
    if not explains or "vocabulary" not in task.spec.fitted or len(names) != 1 or len(task.spec.inputs) != 1:
        return []
    from dlframe.readers.texts.tokens import words_of

    texts, probability, target = dataset.test[names[0]], scores["probability"], scores["target"]
    if not isinstance(texts, Ragged) or len(texts) != len(target):
        return []
    prediction, confidence = task.classes(probability), probability.amax(1)  # type: ignore[operator]
    short = torch.from_numpy(texts.lengths <= LONGEST)
    found = []
    for wanted in (prediction == target, prediction != target):
        order = torch.where(wanted & short, confidence, -1).argsort(descending=True, stable=True)[:count]
        for i in order[(wanted & short)[order]].tolist():
            tokens = torch.from_numpy(np.array(texts[i])).to(task.device)
            label = int(prediction[i])
            if hasattr(model, "contributions"):
                weights = model.contributions(tokens, label)
            else:
                weights = integrated_gradients(model, model.token_embedding, tokens, label)
            classes = task.spec.classes
            found.append(
                ReadText(
                    words_of(tokens.tolist(), task.spec.fitted),
                    weights.detach().float().cpu().numpy(),
                    classes[int(target[i])],
                    classes[label],
                    float(probability[i, label]),
                )
            )
    return found
