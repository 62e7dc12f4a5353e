"""Numbers that the released weights were trained with, each under one name."""

FEATURE_STRIDE = 16  # pixels of the input per pixel of the coarsest features
MASK_STRIDE = 4  # pixels of the input per pixel of a mask that the decoder takes or gives
PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB, 0-255
PIXEL_STD = (58.395, 57.12, 57.375)
PADDING_LABEL = -1  # label of a point that is not there
BOX_CORNER_LABELS = (2, 3)  # labels of a box's top left and bottom right corner
MASK_PROMPT_LOGIT = 10.0  # a mask prompt of 0 and 1 becomes plus or minus this
PREVIOUS_MASK_CLAMP = 32.0  # a previous mask is fed back within plus and minus this
NON_OWNER_LOGIT = -10.0  # ceiling for the logits of a pixel that another object owns
ABSENT_LOGIT = -1024.0  # every pixel of the mask of an absent object
DEFAULT_PRESENCE_LOGIT = 10.0  # presence where the network does not predict it
LETTERBOX_VALUE = 114  # the grey around a letterboxed image, of 255
