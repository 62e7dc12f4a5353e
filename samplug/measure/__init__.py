"""How good a network is: on your own pictures and videos, and on drawn ones that need no file.

`pictures`, `videos` and `scenes` need torch, numpy and OpenCV alone.
"""
