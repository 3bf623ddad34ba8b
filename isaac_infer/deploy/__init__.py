"""What has to be true of a deployment before a robot may rely on it; no ROS here."""
