"""From the scores of frames to the scores of a video (section 3.2, "Class prediction")."""

import torch


def top_k(n_frames: torch.Tensor, *, gamma: float) -> torch.Tensor:
    """Eq. (3): k = max(1, floor(n / gamma)) for each video, from its own number of frames ``[b]``; gamma >= 1."""
    return torch.div(n_frames, gamma, rounding_mode="floor").clamp(min=1).long()


def video_logits(frame_logits: torch.Tensor, mask: torch.Tensor, *, gamma: float) -> torch.Tensor:
    """Average the logits of each video's k most confident frames.

    The paper averages "scores"; here they are the classifier's linear scores, and a frame's confidence is the
    largest of its own. Among frames of equal confidence the earlier one comes first.

    Args:
        frame_logits: ``[b, n, c]``
        mask: bool ``[b, n]``, False at padding
        gamma: see eq. (3)

    Returns:
        ``[b, c]``
    """
    k = top_k(mask.sum(dim=1), gamma=gamma)  # [b]
    confidence = frame_logits.amax(dim=2).masked_fill(~mask, -torch.inf)  # [b, n]
    order = confidence.argsort(dim=1, descending=True, stable=True)  # [b, n]
    rank = order.argsort(dim=1)  # [b, n], 0 for the most confident frame
    selected = rank < k[:, None]  # [b, n]; padding ranks last and k <= n, so none of it is selected
    total = frame_logits.masked_fill(~selected[:, :, None], 0.0).sum(dim=1)  # [b, c]
    return total / k[:, None]


def video_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Softmax of video logits ``[b, c]``, in float64: in float32 sure videos tie at 1.0, and mAP ranks them."""
    return logits.double().softmax(dim=1)
