"""The seam to ROS 2: messages, parameters, the lifecycle base node, diagnostics and transport."""
