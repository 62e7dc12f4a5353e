"""Mistakes to plant in the formats of labels and in the review list."""

from planted.defect import Defect

FORMATS = "data/test_label_formats.py"
REVIEW = "annotate/test_review.py"
SAVED = "predict/results/test_labels.py"
CLOSED = "cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9)))"

LABELS = (
    Defect("a hole is lost", "formats/records.py", "rle_encode(mask), iou", f"rle_encode({CLOSED}), iou", FORMATS),
    Defect("CVAT's runs go down the columns", "formats/cvat.py", "rle_encode(inside.T", "rle_encode(inside", FORMATS),
    Defect(
        "CVAT's masks one pixel off", "formats/cvat.py", "int(rows[0]), int(columns[0])", "int(rows[0]) + 1, 0", FORMATS
    ),
    Defect("a brush of three channels", "label_studio.py", "left = RGBA * run", "left = 3 * run", FORMATS),
    Defect(
        "tracks of BURST off by one", "formats/videos.py", "masks[at][str(track + 1)]", "masks[at][str(track)]", FORMATS
    ),
    Defect(
        "categories of COCO shifted", "formats/coco.py", '"id": number + 1, "name"', '"id": number + 2, "name"', FORMATS
    ),
    Defect(
        "Datumaro's labels by class number", "datumaro.py", '"label_id": labels[number]', '"label_id": number', FORMATS
    ),
    Defect("ids of MOTS collide", "formats/videos.py", "if n not in taken]", "]", FORMATS),
    Defect("the lower score owns a pixel", "formats/videos.py", "-objects[i][1].iou", "objects[i][1].iou", FORMATS),
    Defect(
        "SA-V fills what is not seen",
        "formats/videos.py",
        "if at in found else nothing",
        "if at in found else next(iter(found.values()))[1].rle",
        FORMATS,
    ),
    Defect("a frame's label by its video", "formats/base.py", '/{record.frame:06d}.jpg"', '.jpg"', FORMATS),
    Defect("a class of meta.json of another video", "formats/png.py", "            self._objects = {}\n", "", FORMATS),
    Defect("two images of one name", "results/labels.py", "if self.paths.get(name, path) == path)", ")", SAVED),
    Defect(
        "a run broken off leaves no file",
        "results/labels.py",
        "stack.callback(writer.__exit__, None, None, None)",
        "pass",
        SAVED,
    ),
    Defect("jumps by place, not by id", "review/table.py", "if other.id == each.id", "if True", REVIEW),
    Defect(
        "one class twice is a conflict",
        "review/table.py",
        "if other.name != each.name and other.area",
        "if other.area",
        REVIEW,
    ),
)
