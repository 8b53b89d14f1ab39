"""Fine-tuning of a classifier in plain PyTorch: a linear probe first, then all weights at a low rate.

Starting from the probe keeps the first steps from distorting what was learned without labels (Kumar et al., 2022).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.data.rows import Row
from raysl.models.encoder import Encoder
from raysl.models.heads import Classifier
from raysl.objectives.augment import NUM_UNIFORM, views
from raysl.train.config import FinetuneConfig, OptimizerConfig
from raysl.train.inputs import batches, to_tensor
from raysl.train.optimizers import adamw, rate_share, set_rate


@torch.no_grad()
def apply(model: Callable[[Tensor], Tensor], encoder: Encoder, rows: Sequence[Row], width: int) -> npt.NDArray[np.float32]:
    """model(what `encoder` reads) -> (batch, width) for all rows, in their order; on the device of the encoder."""
    out, device = np.zeros((len(rows), width), np.float32), device_of(encoder)
    for places in batches(encoder, rows):
        out[places] = model(to_tensor(encoder, [rows[p] for p in places]).to(device)).float().cpu().numpy()
    return out


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def embed(encoder: Encoder, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    """Embeddings (rows, width) of a frozen encoder."""
    encoder.eval()
    return apply(encoder.embed, encoder, rows, encoder.width)


def predict(classifier: Classifier, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    """Logits (rows, classes)."""
    classifier.eval()
    return apply(lambda inputs: classifier(inputs)[0], classifier.encoder, rows, classifier.head.out_features)


def fit_probe(
    embeddings: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], num_classes: int, strength: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights (classes, width) and biases of a logistic regression; classes without rows get a low bias."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(targets)
    weight = np.zeros((num_classes, embeddings.shape[1]), np.float32)
    bias = np.full(num_classes, -10.0, np.float32)
    if len(present) == 1:
        bias[present] = 10.0
        return weight, bias
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(embeddings, targets)
    if len(present) == 2:  # scikit-learn keeps one row of weights for two classes
        weight[present] = np.concatenate([-fitted.coef_, fitted.coef_]) / 2
        bias[present] = np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2
    else:
        weight[present], bias[present] = fitted.coef_, fitted.intercept_
    return weight, bias


def finetune_classifier(
    encoder: Encoder, rows: Sequence[Row], targets: npt.NDArray[np.int64], num_classes: int,
    config: FinetuneConfig, seed: int, on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Classifier:  # fmt: skip
    """Trains `encoder`, where it lies, and a new head on labelled rows; `encoder` is changed.

    `on_epoch(epoch, mean loss)` is told.
    """
    torch.manual_seed(seed)
    device = device_of(encoder)
    classifier = Classifier(encoder, num_classes).to(device)
    weight, bias = fit_probe(embed(encoder, rows), targets, num_classes, config.probe_strength)
    with torch.no_grad():
        classifier.head.weight.copy_(torch.from_numpy(weight))
        classifier.head.bias.copy_(torch.from_numpy(bias))
    steps_per_epoch = _num_batches(classifier, len(rows), config.batch_size)
    schedule = OptimizerConfig(learning_rate=config.learning_rate, weight_decay=config.weight_decay, warmup_share=0.1)
    optimizer = adamw(classifier, schedule)
    generator, step = np.random.default_rng((seed, 2)), 0
    classifier.train()
    for epoch in range(config.epochs):
        total = 0.0
        for places in np.array_split(generator.permutation(len(rows)), steps_per_epoch):
            set_rate(optimizer, config.learning_rate * rate_share(step, config.epochs * steps_per_epoch, schedule))
            inputs = to_tensor(encoder, [rows[p] for p in places]).to(device)
            if config.augment is not None:
                numbers = torch.from_numpy(generator.random((len(places), NUM_UNIFORM), np.float32))
                inputs = views(inputs, numbers.to(device), config.augment)
            total += _step(classifier, optimizer, inputs, targets[places], schedule) * len(places)
            step += 1
        on_epoch(epoch, total / len(rows))
    return classifier.eval()


def _num_batches(model: nn.Module, num_rows: int, batch_size: int) -> int:
    """Of a pass. BatchNorm has no deviation of a single row, so it gets two at least, where there are two."""
    number = -(-num_rows // batch_size)
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        return max(1, min(number, num_rows // 2))
    return number


def _step(
    classifier: Classifier, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: npt.NDArray[np.int64],
    schedule: OptimizerConfig,
) -> float:  # fmt: skip
    logits, _ = classifier(inputs)
    loss = F.cross_entropy(logits, torch.from_numpy(targets).to(logits.device))
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(classifier.parameters(), schedule.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()
