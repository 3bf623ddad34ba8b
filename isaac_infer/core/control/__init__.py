"""Control: from sensors and models to the command that a robot may follow; no ROS, no clock."""
