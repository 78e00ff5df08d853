"""What a network gets wrong: precision against recall, and its worst answers."""

import numpy as np

from lstm_jax.tasks.task import Task


def one_against_rest(task: Task, predictions, targets):
    """For each class or label, scores [n] and truths [n] (bool) of known entries."""
    predictions, targets = np.asarray(predictions, np.float64), np.asarray(targets)
    if task.name == "classification":
        return [(predictions[:, k], targets == k) for k in range(task.outputs)]
    known = ~np.isnan(targets)
    return [
        (predictions[..., k][known[..., k]], targets[..., k][known[..., k]] == 1)
        for k in range(task.outputs)
    ]


def average_precisions(pairs) -> list[float | None]:
    """Of each pair (scores, truths); None where only one of the two answers occurs."""
    from sklearn.metrics import average_precision_score

    return [
        float(average_precision_score(truth, scores))
        if truth.any() and not truth.all()
        else None
        for scores, truth in pairs
    ]


def precision_recall_figure(pairs, names):
    """Precision against recall, and average precision.

    Args:
      pairs: (scores [n], truths [n]) of each class against the rest, or each label.
      names: of them.

    Returns:
      A Figure; at most ten curves, those of the lowest average precision, are named.
    """
    from sklearn.metrics import precision_recall_curve

    from lstm_jax.look import COLORS, INK, figure, safe, tidy

    known = {k: ap for k, ap in enumerate(average_precisions(pairs)) if ap is not None}
    fig = figure(8.6, 5.8)
    ax = fig.add_subplot()
    tidy(ax)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set_xlabel("recall")
    ax.set_ylabel("precision")
    ax.set_title("Precision and recall: each against the rest")
    if not known:
        ax.text(0.5, 0.55, "only one answer in the targets:\nno curve", ha="center")
        return fig
    hardest = sorted(known, key=known.get)
    named = sorted(known) if len(known) <= len(COLORS) else hardest[: len(COLORS)]
    macro = float(np.mean(list(known.values())))
    axes = [ax]
    if macro > 0.9:  # everything happens in the corner
        corner = ax.inset_axes([0.14, 0.14, 0.56, 0.56])
        corner.set(xlim=(0.8, 1.004), ylim=(0.8, 1.004))
        corner.set_xticks([0.8, 0.9, 1.0])
        corner.set_yticks([0.8, 0.9, 1.0])
        corner.tick_params(labelsize=9, length=2)
        corner.set_title("the corner, enlarged", fontsize=9)
        corner.grid(color="#e3e7eb", linewidth=0.8)
        corner.set_axisbelow(True)
        axes.append(corner)
    for k in [k for k in known if k not in named] + named:
        precision, recall, _ = precision_recall_curve(pairs[k][1], pairs[k][0])
        order = named.index(k) if k in named else None
        for each in axes:
            each.plot(
                recall,
                precision,
                drawstyle="steps-post",
                color="#c3cad1" if order is None else COLORS[order],
                linestyle="-" if order is None or order % 2 == 0 else (0, (5, 1.5)),
                linewidth=0.5 if order is None else 1.5,
                label=None
                if order is None
                else f"{known[k]:.4f}  {safe(names[k], 20)}",
            )
    title = f"average precision\n{macro:.4f}  mean (macro)"
    if len(known) > len(named):
        title += f"\nthe {len(named)} hardest of {len(known)}:"
    legend = ax.legend(
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        frameon=False,
        alignment="left",
        labelcolor=INK,
    )
    legend.get_title().set_linespacing(1.5)
    return fig


def middle_frames(inputs, lengths=None):
    """Pictures [N, H, W, C] of clips [N, T, H, W, C]: each one's middle frame."""
    if inputs.ndim == 4:
        return inputs
    steps = np.full(len(inputs), inputs.shape[1]) if lengths is None else lengths
    return inputs[np.arange(len(inputs)), np.asarray(steps) // 2]


def picture_sheet(pictures, captions, *, title: str):
    """Pictures side by side, each above a few lines of words.

    Args:
      pictures: uint8 [N, H, W, C]; one channel or two are grey (their mean), three
        are RGB.
      captions: N texts; lines are kept.
      title: above the sheet.

    Returns:
      A Figure.
    """
    from lstm_jax.look import INK, figure, safe
    from lstm_jax.tasks.film import to_uint8

    across = min(len(pictures), 6)
    down = -(-len(pictures) // across)
    lines = max(caption.count("\n") + 1 for caption in captions)
    height, width = pictures.shape[1:3]
    tall = float(np.clip(1.45 * height / width, 0.6, 3.0)) + 0.2 * lines
    fig = figure(0.4 + 1.8 * across, 0.6 + (tall + 0.15) * down)
    fig.suptitle(title, color=INK)
    axes = fig.subplots(down, across, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, picture, caption in zip(axes, pictures, captions, strict=False):
        ax.imshow(to_uint8(picture), cmap="gray", vmin=0, vmax=255)
        text = "\n".join(safe(line, 26) for line in caption.split("\n"))
        ax.set_title(text, fontsize=9, color=INK)
    return fig
