"""The state of a Jetson board, read from text and sysfs: no root, no daemon, no ROS."""
