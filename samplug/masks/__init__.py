"""Functions of masks: resizing, boxes, IoU, regions, storage."""
