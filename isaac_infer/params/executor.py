"""Executor: the parameters of what looks at pictures and commands a robot at a fixed rate."""

from __future__ import annotations

from dataclasses import dataclass

from isaac_infer.core.build_options import PRECISIONS
from isaac_infer.core.control.obstacle import AvoidanceRule
from isaac_infer.core.control.safety import SafetyLimits
from isaac_infer.core.control.variants import VariantLimits
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.text import printable
from isaac_infer.params.declare import Params, param

INPUTS = ('image', 'scan', 'imu', 'command', 'perception')  # that can be required to be fresh
SERVICES = 'services'  # whether those of the node answer, so that ~/stop can be heard
SERVICES_MAX_AGE_S = 2.0


@dataclass(frozen=True)
class ExecutorParams(Params):
    """Parameters of jetson_executor."""

    model_directory: str = param(
        '',
        'Folder in which relative paths of models, and control_config, are looked up first; empty: only the '
        'working directory and the models of this package.',
    )
    perception_model_path: str = param('', 'The model that looks at pictures, of any task; empty: none does.')
    perception_task: str = param(
        '', 'What that model is for; empty: found out.', choices=('', 'detection', 'segmentation', 'pose')
    )
    perception_variants: list[str] = param(
        [],
        'Models to use instead while time, temperature or load level demand it, each lighter than the one '
        'before.',
    )
    load_variants: str = param(
        'background',
        'start: all are open before the first picture is looked at; background: one after the other, while '
        'those that are open work.',
        choices=('start', 'background'),
    )
    control_model_path: str = param(
        '', 'The control policy; empty: the obstacle rule follows ai_commands, or cruises.'
    )
    control_config: str = param(
        '', 'YAML file that binds the inputs and the outputs of the control policy; needed with one.'
    )
    backend: str = param(
        'auto', 'What runs the models, as with the perception nodes.',
        choices=('auto', 'onnxruntime', 'tensorrt'),
    )  # fmt: skip
    precision: str = param('fp16', 'What TensorRT computes in.', choices=PRECISIONS)
    num_threads: int = param(
        0, 'Threads of the CPU backend for perception; 0: one per core.', low=0, high=256
    )
    control_num_threads: int = param(
        1, 'Threads of the CPU backend for the control policy; 0: one per core.', low=0, high=256
    )
    confidence_threshold: float = param(0.25, 'Drop objects that score less.', low=0.0, high=1.0)
    class_ids: str = param(
        'name',
        'What class_id carries in the typed messages: the class name, or its index.',
        choices=('name', 'index'),
    )
    execution_frequency: float = param(30.0, 'Commands per second.', low=1.0, high=1000.0)
    deadline_share: float = param(
        0.8,
        'Share of a period that the control policy has for its answer; one that comes later is a missed '
        'deadline, and the robot stops.',
        low=0.05,
        high=0.95,
    )
    enabled_at_start: bool = param(
        False, 'Whether the robot may move before ~/enable was called: only where that is safe.'
    )
    required_inputs: list[str] = param(
        [],
        'Inputs without which the robot stands, besides those that the policy, the obstacle rule and '
        'stop_distance_m use: image, scan, imu, command, perception.',
    )
    max_age_s__image: float = param(0.5, 'Seconds until a picture is stale.', low=0.001, high=60.0, live=True)
    max_age_s__scan: float = param(0.3, 'Seconds until a scan is stale.', low=0.001, high=60.0, live=True)
    max_age_s__imu: float = param(0.1, 'Seconds until an Imu is stale.', low=0.001, high=60.0, live=True)
    max_age_s__command: float = param(
        0.5, 'Seconds until a command on ai_commands is stale.', low=0.001, high=60.0, live=True
    )
    max_age_s__perception: float = param(
        1.0, 'Seconds until the picture of the last answer is stale.', low=0.001, high=60.0, live=True
    )
    max_linear_mps: float = param(0.5, 'Speed at most, in m/s.', low=0.0, high=100.0, live=True)
    max_angular_radps: float = param(1.0, 'Turning speed at most, in rad/s.', low=0.0, high=100.0, live=True)
    max_linear_mps2: float = param(
        1.0, 'Acceleration at most, in m/s^2; a stop for a fault is not limited.', low=0.0, high=1000.0,
        live=True,
    )  # fmt: skip
    max_angular_radps2: float = param(
        3.0, 'Turning acceleration at most, in rad/s^2; see max_linear_mps2.', low=0.0, high=1000.0,
        live=True,
    )  # fmt: skip
    stop_distance_m: float = param(
        0.35,
        'Stop for what the scan shows nearer than this where the robot drives to, or would be before the '
        'next command; 0: no scan is needed, and nothing stops the robot but its policy.',
        low=0.0,
        high=100.0,
        live=True,
    )
    turn_distance_m: float = param(
        0.5,
        'Obstacle rule: before what is nearer than this it only turns; more than stop_distance_m.',
        low=0.0,
        high=100.0,
        live=True,
    )
    slow_distance_m: float = param(
        1.2,
        'Obstacle rule: from this distance on it drives the slower and turns away the faster, the nearer it '
        'comes; more than turn_distance_m.',
        low=0.0,
        high=100.0,
        live=True,
    )
    turn_speed_radps: float = param(
        0.6, 'Obstacle rule: how fast it turns away.', low=0.0, high=100.0, live=True
    )
    cruise_speed_mps: float = param(
        0.0,
        'Obstacle rule: drive ahead at this speed while no commands come; 0: stand then.',
        low=0.0,
        high=100.0,
        live=True,
    )
    half_width_m: float = param(
        0.25, 'Half the width of the robot: what passes beside it is no obstacle.', low=0.01, high=10.0,
        live=True,
    )  # fmt: skip
    scan_x_m: float = param(
        0.0, 'Where the scanner sits: forward of the middle of the robot.', low=-100.0, high=100.0
    )
    scan_y_m: float = param(0.0, 'The same to the left.', low=-100.0, high=100.0)
    scan_yaw_rad: float = param(
        0.0, 'How far its x axis is turned to the left from that of the robot.', low=-6.3, high=6.3
    )
    scan_is_upside_down: bool = param(False, 'Whether it hangs upside down.')
    scan_zero_is_unknown: bool = param(
        False, 'Whether a range of 0 means "not measured", as some drivers have it; else it is an obstacle.'
    )
    latching_faults: list[str] = param(
        [],
        'Kinds of faults after which the robot stands until ~/reset: other_authority, clock, missing, stale, '
        'future, model_error, deadline, no_command, not_finite, unreadable, obstacle.',
    )
    performance_thresholds__avg_inference_time_ms: float = param(
        0.0, 'Use a lighter variant where a picture takes longer than this on average; 0: not watched.',
        low=0.0, high=60000.0, live=True,
    )  # fmt: skip
    performance_thresholds__min_fps: float = param(
        0.0,
        'Use a lighter variant where fewer pictures per second are answered, of as many that come; 0: not '
        'watched.',
        low=0.0,
        high=1000.0,
        live=True,
    )
    performance_thresholds__max_temperature_c: float = param(
        0.0, 'Use a lighter variant where a part of the board is hotter than this; 0: not watched.',
        low=0.0, high=150.0, live=True,
    )  # fmt: skip
    variant_hold_s: float = param(
        10.0,
        'How long all has to be well inside the limits before a heavier variant is tried again; twice as '
        'long after each one that could not be kept.',
        low=0.1,
        high=3600.0,
        live=True,
    )
    obey_load_level: bool = param(
        False, 'Use a lighter variant where load_level says reduced, and the lightest where it says minimal.'
    )
    cpu_affinity: list[int] = param(
        [], 'Cores that this process runs on; empty: all it may.', low=0, high=1023
    )
    thread_priority: int = param(
        0,
        'Real-time priority (SCHED_FIFO) of the control thread, and one less of the control policy; 0: '
        'ordinary threads.',
        low=0,
        high=99,
    )
    memory_reservation_mb: int = param(
        256,
        'Memory in MB that has to be free after a model was loaded; 0: not looked at.',
        low=0,
        high=1 << 20,
    )
    gpu_memory_reservation_mb: int = param(
        0, 'The same of the GPU, for models that run on TensorRT.', low=0, high=1 << 20
    )
    enable_benchmarking: bool = param(
        False, 'Write how long each stage took, and how well the rate was kept, into the log now and then.',
        live=True,
    )  # fmt: skip
    benchmark_interval: float = param(
        10.0, 'Seconds between two such lines.', low=1.0, high=3600.0, live=True
    )

    def check(self) -> None:
        unknown = sorted(set(self.required_inputs) - set(INPUTS))
        if unknown:
            raise ParameterError(
                f'required_inputs: expected some of {", ".join(INPUTS)}, got '
                f'{printable(", ".join(unknown)[:200])}'
            )
        if 'perception' in self.required_inputs and not self.perception_model_path:
            raise ParameterError(
                'required_inputs: perception is required, but perception_model_path is empty'
            )
        if self.perception_variants and not self.perception_model_path:
            raise ParameterError('perception_variants: needs perception_model_path, which is empty')
        if bool(self.control_model_path) != bool(self.control_config):
            raise ParameterError(
                'control_model_path and control_config: expected both or neither, got '
                f'{self.control_model_path!r} and {self.control_config!r}'
            )
        if not self.control_model_path and self.turn_distance_m <= self.stop_distance_m:
            raise ParameterError(
                f'turn_distance_m: expected more than stop_distance_m ({self.stop_distance_m:g}), so that it '
                f'turns before it is stopped, got {self.turn_distance_m:g}'
            )
        self.safety_limits(())
        self.avoidance_rule()

    def safety_limits(self, required: tuple[str, ...]) -> SafetyLimits:
        """What the robot may do, with these inputs fresh.

        Raises:
            ParameterError: a kind of fault is unknown.
        """
        return SafetyLimits(
            period_s=1 / self.execution_frequency,
            max_age_s={
                **{name: getattr(self, f'max_age_s__{name}') for name in INPUTS if name in required},
                SERVICES: SERVICES_MAX_AGE_S,
            },
            stop_distance_m=self.stop_distance_m,
            max_linear_mps=self.max_linear_mps,
            max_angular_radps=self.max_angular_radps,
            max_linear_mps2=self.max_linear_mps2,
            max_angular_radps2=self.max_angular_radps2,
            latching=frozenset(self.latching_faults),
        )

    def avoidance_rule(self) -> AvoidanceRule:
        """How the robot is driven where there is no policy.

        Raises:
            ParameterError: the distances contradict one another.
        """
        return AvoidanceRule(
            slow_distance_m=self.slow_distance_m,
            stop_distance_m=self.turn_distance_m,
            half_width_m=self.half_width_m,
            turn_radps=self.turn_speed_radps,
            cruise_mps=self.cruise_speed_mps,
        )

    def variant_limits(self) -> VariantLimits:
        """What the model in use has to keep."""
        return VariantLimits(
            mean_ms=self.performance_thresholds__avg_inference_time_ms,
            least_hz=self.performance_thresholds__min_fps,
            max_celsius=self.performance_thresholds__max_temperature_c,
            hold_s=self.variant_hold_s,
        )
