"""isaac_infer: neural networks on a Jetson robot, from image message to result."""

__version__ = '0.1.0'
