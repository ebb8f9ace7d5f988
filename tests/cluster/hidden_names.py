"""A Ray without private names that hkrun uses: `python hidden_names.py ARGUMENTS...` is hkrun with it.

It is the driver's program, too, which hides the names before it starts Ray.
"""

import runpy
import sys

from hkrun.cluster import tasks
from hkrun.cluster.driver import start_driver

GENUINE = tasks._tune


def tune(running, observer, **arguments):
    import ray.experimental.internal_kv

    del ray.experimental.internal_kv.internal_kv_get_gcs_client  # not before: ray.init imports it
    return GENUINE(running, observer, **arguments)


def hide() -> None:
    """Gives names that Ray itself needs another signature."""
    import ray
    from ray._private import parameter, services

    parameters, get_node, init = parameter.RayParams, services.get_node, ray.init
    start_raylet, start_api_server = services.start_raylet, services.start_api_server

    def init_without(**options):
        if unknown := {"_memory", "_temp_dir", "_skip_env_hook"} & set(options):
            raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
        return init(**options)

    ray.init = init_without
    parameter.RayParams = lambda **options: parameters(**options)
    services.get_node = lambda *arguments: get_node(*arguments)
    services.start_raylet = lambda *arguments, **options: start_raylet(*arguments, **options)
    services.start_api_server = lambda *arguments, **options: start_api_server(*arguments, **options)


if __name__ == "__main__":
    if sys.argv[1].isdigit():  # the descriptor by which a driver hears from its command
        hide()
        runpy.run_path(start_driver.__file__, run_name="__main__")
    else:
        import hidden_names

        from hkrun.cli import main

        tasks._tune = hidden_names.tune  # pickled by the name of this module, not of the program
        start_driver.__file__ = __file__
        main()
