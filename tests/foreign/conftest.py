"""Programs that need packages of the extra `foreign` are left out where these are not installed."""

from importlib.util import find_spec

collect_ignore = [
    f"{program}.py"
    for program, package in (
        ("accelerate_gan", "accelerate"),
        ("fabric_gan", "lightning"),
        ("lightning_gan", "lightning"),
    )
    if find_spec(package) is None
]
