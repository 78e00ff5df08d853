"""Constants of targets, shared by data, metrics, figures and tasks."""

VOID = 255  # mask value of pixels that are ignored

# Columns of a box: x0, y0, x1, y1 in pixels; the class, -1 for an empty row; 1 for a
# crowd region, which need not be detected; the occluded fraction.
CORNERS, CLASS, CROWD, HIDDEN = slice(0, 4), 4, 5, 6
COLUMNS = 7
