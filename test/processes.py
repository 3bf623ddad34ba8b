"""Nodes as processes of their own, and a peer that talks to them over DDS."""

import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from functools import partial


def parameters(**values):
    """Give parameters as a command line of ROS 2."""
    arguments = [['-p', f'{name}:={value}'] for name, value in values.items()]
    return ['--ros-args', *(word for words in arguments for word in words)]


class Process:
    """A node that runs."""

    def __init__(self, module, *arguments, log):
        self._log = log
        self._popen = subprocess.Popen(
            [sys.executable, '-m', f'isaac_infer.nodes.{module}', *map(str, arguments)],
            stdout=log.open('wb'),
            stderr=subprocess.STDOUT,
            preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
        )
        self.pid = self._popen.pid

    @property
    def is_alive(self):
        return self._popen.poll() is None

    @property
    def log(self):
        return self._log.read_text(errors='replace')

    def wait_for(self, text, timeout_s=30):
        """Wait until the log has a text."""
        wait_until(lambda: text in self.log or not self.is_alive, timeout_s)
        assert text in self.log, f'{text!r} is not in the log:\n{self.log}'

    def wait(self, timeout_s=30):
        """Wait for the end and give the exit code."""
        return self._popen.wait(timeout_s)

    def stop(self, number=signal.SIGINT, timeout_s=20):
        if self.is_alive:
            self._popen.send_signal(number)
        return self.wait(timeout_s)

    def end(self):
        """Stop the process, kindly first: what is killed leaves shared memory behind."""
        try:
            self.stop(timeout_s=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self._popen.kill()
        self._popen.wait()


def wait_until(condition, timeout_s=20):
    """Wait for a condition; tell whether it came true."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Peer:
    """A node that publishes pictures, collects what comes back, and calls services."""

    def __init__(self, name, namespace=''):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.node = rclpy.create_node(name, namespace=namespace)
        self.got = defaultdict(list)
        self._clients = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def listen(self, kind, topic, qos=10):
        """Collect messages under the name of their topic."""
        self.node.create_subscription(kind, topic, self.got[topic].append, qos)

    def wait_for(self, topic, count, timeout_s=20):
        """Wait until so many messages came on a topic, and give them all."""
        wait_until(lambda: len(self.got[topic]) >= count, timeout_s)
        assert len(self.got[topic]) >= count, f'{topic}: {len(self.got[topic])} of {count} messages came'
        return self.got[topic]

    def call(self, kind, service, request, timeout_s=20):
        """Call a service and give its response."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
            assert self._clients[service].wait_for_service(timeout_s), f'{service} is not there'
            time.sleep(0.1)  # it is known here a moment before it knows whom to answer
        future = self._clients[service].call_async(request)
        wait_until(future.done, timeout_s)
        assert future.done(), f'{service} did not answer'
        return future.result()

    def set(self, node, **values):
        """Set parameters one by one; give the results."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        given = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParameters.Request(parameters=given)
        return self.call(SetParameters, f'{node}/set_parameters', request).results

    def transit(self, node, transition='', number=0):
        """Make a lifecycle transition by its label, or by its number; tell whether it succeeded."""
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.label, request.transition.id = transition, number
        return self.call(ChangeState, f'{node}/change_state', request).success

    def state(self, node):
        from lifecycle_msgs.srv import GetState

        return self.call(GetState, f'{node}/get_state', GetState.Request()).current_state.label

    def diagnostics(self, since=0):
        """The values of the newest status that came, or {}."""
        messages = self.got['/diagnostics'][since:]
        return {pair.key: pair.value for pair in messages[-1].status[0].values} if messages else {}

    def close(self):
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
