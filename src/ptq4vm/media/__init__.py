"""Videos and images, in and out: frames with their clocks, colours, rotation and sound, as arrays. Data sets and
matting read and write through it alone: another format, codec or camera enters here. No network, no metric and no
configuration may enter."""
