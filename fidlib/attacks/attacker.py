"""What an attacker has: images of his own, apart from all that he is judged on."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fidlib.data import Split
from fidlib.runs.keys import stream
from fidlib.triggers.drawings import patches


def apart(split: Split, others: Iterable[Split]) -> Split:
    """A split without the images that others hold too, and each image once."""
    known = {each for other in others for each in _bytes(other)}
    rows = {each: row for row, each in reversed([*enumerate(_bytes(split))])}
    kept = sorted(row for each, row in rows.items() if each not in known)
    index = torch.tensor(kept, dtype=torch.long, device=split.labels.device)
    return Split(split.images[index], split.labels[index])


def shared(split: Split, other: Split) -> int:
    """How many images of a split another one holds too, as bytes hold them."""
    known = {*_bytes(other)}
    return sum(each in known for each in _bytes(split))


def drawn(free: Split, seed: int) -> tuple[Split, Split]:
    """An attacker's images, and a fifth of what he has, on which he tries what he made.

    A tenth, and of a small set a quarter, as many of each class: all that there are of
    a class that has fewer.

    Args:
        free: Training images that he may have.
        seed: Decides which he has.
    """
    generator = stream(seed, "attacker")
    classes, total = free.labels.unique(), len(free)
    count = max(2, max(total // 10, min(total // 4, 500)) // max(1, len(classes)))
    his, tried = [free.labels[:0]], [free.labels[:0]]
    for label in classes:
        rows = (free.labels == label).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator)[:count]
        rows = rows[order.to(rows.device)]
        fifth = max(1, len(rows) // 5)
        tried.append(rows[:fifth])
        his.append(rows[fifth:])
    return _taken(free, his), _taken(free, tried)


def photographs(like: Split, count: int, seed: int) -> Split:
    """Patches of scikit-learn's two photographs, for who has no images of a kind.

    Args:
        like: Images of the shape that is wanted.
        count: How many images.
        seed: Decides the places.

    Returns:
        Float images, all of class 0.
    """
    channels, height, width = like.images.shape[1:]
    images = patches(count, height, width, stream(seed, "photographs"))
    images = images.mean(1, keepdim=True) if channels == 1 else images
    images = images.to(like.images.device)
    return Split(images, torch.zeros(count).long().to(images.device))


def _taken(split: Split, rows: list[Tensor]) -> Split:
    index = torch.cat(rows).sort().values
    return Split(split.images[index], split.labels[index])


def _bytes(split: Split) -> list[bytes]:
    """Each image as a picture of bytes: two that look alike are alike."""
    images = split.images.cpu()
    if images.dtype != torch.uint8:
        images = (images.float().clamp(0, 1) * 255).round().byte()
    return [row.tobytes() for row in images.numpy()]
