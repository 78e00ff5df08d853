"""What targets hold: constants that data, metrics, figures and tasks share."""

VOID = 255  # of a mask: a pixel that counts for nothing

# columns of a box: x0, y0, x1, y1 in pixels; the class, -1 where a row is empty; 1 for
# a crowd, which is not to be found one by one; the share that is hidden
CORNERS, CLASS, CROWD, HIDDEN = slice(0, 4), 4, 5, 6
COLUMNS = 7
