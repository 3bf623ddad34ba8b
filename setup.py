from glob import glob

from setuptools import find_packages, setup

package = 'isaac_infer'


def share(folder):
    """Install the files of a folder under share/isaac_infer/."""
    return (f'share/{package}/{folder}', sorted(glob(f'{folder}/*.*')))


setup(
    name=package,
    version='0.1.0',
    description='ROS 2 nodes that run neural networks on the pictures of a robot.',
    long_description='An image goes in, detections come out. See README.md.',
    license='Apache-2.0',
    maintainer='isaac_infer maintainers',
    maintainer_email='maintainers@isaac-infer.example',
    python_requires='>=3.10',
    packages=find_packages(include=[package, f'{package}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package}']),
        (f'share/{package}', ['package.xml']),
        share('config'),
        share('launch'),
        share('models'),
        ('bin', ['tools/isaac-infer']),  # colcon puts bin, unlike lib/isaac_infer, on PATH
    ],
    install_requires=['setuptools'],
    extras_require={
        'test': ['pytest'],  # colcon runs pytest only where this names it
        # Without ROS: what package.xml names for robots, by its names on PyPI.
        'standalone': [
            'numpy',
            'onnx',
            'onnxruntime',
            'opencv-python-headless',
            'psutil',
            'pyyaml',
            'rich',
            'rosbags',
        ],
        'nvml': ['nvidia-ml-py'],  # load and clocks of a PC's GPU, or a Thor's
        # To build and run TensorRT engines; on a Jetson TensorRT comes with JetPack.
        'tensorrt': ['onnx', 'pycuda', 'tensorrt'],
        'eval': ['matplotlib', 'pycocotools'],
        'train': ['onnx', 'torch'],
    },
    zip_safe=True,
    entry_points={
        'console_scripts': [
            'detector_node = isaac_infer.nodes.detector_node:main',
            'segmentation_node = isaac_infer.nodes.segmentation_node:main',
            'pose_node = isaac_infer.nodes.pose_node:main',
            'jetson_executor = isaac_infer.nodes.jetson_executor:main',
            'image_source = isaac_infer.nodes.image_source:main',
            'power_manager = isaac_infer.nodes.power_manager:main',
            'recorder = isaac_infer.nodes.recorder:main',
            'robot_simulator = isaac_infer.nodes.robot_simulator:main',
            'deployment_validator = isaac_infer.nodes.deployment_validator:main',
            'isaac-infer = isaac_infer.cli.main:main',
        ],
    },
)
