# Every target first makes .venv if it has to (one to three minutes, once); PYTHON=python3.12 picks another Python.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu lint bench bench-gpu docs clean

# A name that is misspelt on the command line would be taken for one that nobody reads. A make that calls this one
# hands on variables of its own, which are no mistake.
KNOWN := SOURCE MODEL TASK FRAMES RATE OUT ARGS PYTHON
UNKNOWN := $(filter-out $(KNOWN),$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name))))
$(if $(filter 0,$(MAKELEVEL)),$(if $(UNKNOWN),$(error $(UNKNOWN): no variable of this Makefile; there are $(KNOWN); \
  one of the environment goes before make)))

BIN := .venv/bin
TYPED := isaac_infer/core isaac_infer/engine isaac_infer/jetson isaac_infer/deploy isaac_infer/params

# A sourced ROS 2 brings NumPy 1, whose types are not those that the code is written in.
TYPES := $(if $(ROS_DISTRO),echo 'types: not checked where a ROS 2 is sourced',$(BIN)/mypy $(TYPED))
LINT := $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(TYPES)
# The shell reads the values from the environment, so that no character in them can break the command.
export SOURCE MODEL TASK FRAMES RATE OUT
DEMO := $${SOURCE:+--source "$$SOURCE"} $${MODEL:+--model "$$MODEL"} $${TASK:+--task "$$TASK"} $${FRAMES:+--frames "$$FRAMES"} \
        $${RATE:+--rate "$$RATE"} $${OUT:+--out "$$OUT"}

help:
	@echo 'make demo    detection, segmentation or pose over ROS 2 [SOURCE=file|folder|video|rosbag2|/dev/videoN|rtsp://.. MODEL= TASK=detection|segmentation|pose FRAMES= RATE= OUT=]'
	@echo 'make demo TASK=robot   a simulated robot drives among obstacles for a minute [FRAMES= RATE= OUT=]'
	@echo 'make test    lint, types and all tests [ARGS="-k fit"]'
	@echo 'make bench   measure on this machine [ARGS="..."]'
	@echo 'make test-gpu, make bench-gpu   the same with TensorRT on a GPU, by PYTHON that has tensorrt and pycuda'
	@echo 'make lint    lint and types only'
	@echo 'make docs    write config/*.yaml and the parameter tables of README.md and docs/ anew'
	@echo 'make setup   only make .venv'
	@echo 'make clean   remove .venv and everything else that was made here'

setup:
	@command -v "$(or $(PYTHON),python3)" >/dev/null || \
	  { echo 'set-up: $(or $(PYTHON),python3) is not there: Python 3.10 or newer is needed' >&2; exit 2; }
	@"$(or $(PYTHON),python3)" tools/setup_env.py

demo: setup
	@$(BIN)/isaac-infer demo $(DEMO) $(ARGS)

# The tests run even if lint fails, so that one call tells everything.
test: setup
	@status=0; { $(LINT); } || status=1; $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS) || status=1; exit $$status

lint: setup
	@$(LINT)

bench: setup
	@$(BIN)/python tools/bench.py $(ARGS)
	@$(BIN)/python tools/bench_robot.py

# TensorRT and PyCUDA belong to the machine: these run with its own Python, not with .venv.
NEEDS := cv2 numpy onnx onnxruntime pycuda pytest rich tensorrt yaml
GPU_READY = "$(or $(PYTHON),python3)" -c 'import importlib.util as u, sys; \
  missing = [name for name in sys.argv[1:] if not u.find_spec(name)]; \
  sys.exit(f"{sys.executable} lacks {chr(44).join(missing)}; a Jetson: see TensorRT in README.md; elsewhere: pip install -e \".[standalone,tensorrt,test]\"" if missing else 0)' $(NEEDS)

test-gpu:
	@$(GPU_READY)
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" "$(or $(PYTHON),python3)" -m pytest test/gpu $(ARGS)

bench-gpu:
	@$(GPU_READY)
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" "$(or $(PYTHON),python3)" tools/bench_gpu.py $(ARGS)

docs: setup
	@$(BIN)/python tools/write_params.py

clean:
	rm -rf .venv build install log out .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find isaac_infer test tools launch -name __pycache__ -prune -exec rm -rf {} +
