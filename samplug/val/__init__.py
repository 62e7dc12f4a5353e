"""`SAM.val`: how good a network is on users' images and videos, and on drawn ones that need no file."""
