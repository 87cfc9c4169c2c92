"""The `tiphys` command: what a person types. Every command's help is written for somebody who is new to it.

Only click is imported here; a command imports what it needs when it runs, because `tiphys up` counts in milliseconds.
"""

from __future__ import annotations

import errno
import os

import click

from tiphys import __version__
from tiphys.base.errors import TiphysError

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    """Turns what can go wrong on a user's machine into one line on standard error, never a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TiphysError as error:
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what reads our output has seen enough
            raise SystemExit(1) from None
        except ConnectionError as error:
            raise click.ClickException(
                f"the API server does not answer ({error}); `tiphys status` shows what runs, `tiphys up` starts it"
            ) from None
        except OSError as error:
            raise click.ClickException(_explain(error)) from None


def _explain(error: OSError) -> str:
    advice = {
        errno.ENOSPC: "free some space on that disk and run the command again",
        errno.EDQUOT: "free some space of your quota and run the command again",
        errno.EACCES: "run it as the user who made the cluster (often: with sudo)",
        errno.EPERM: "run it as the user who made the cluster (often: with sudo)",
        errno.EROFS: "set TIPHYS_HOME to a directory that can be written",
        errno.ENOENT: "check the path",
    }.get(error.errno or 0, "")
    return (
        f"{error.strerror or error}: {error.filename}" * bool(error.filename)
        + str(error) * (not error.filename)
        + f"; {advice}" * bool(advice)
    )


NAME = click.option(
    "--name", default="tiphys", show_default=True, metavar="NAME", help="Which cluster, if you have several."
)
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For you or a program.",
)


_FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


def _version(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.removeprefix("v").split(".")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is not a Kubernetes version such as 1.37")
    return int(parts[0]), int(parts[1])


@click.group(cls=_Group, context_settings=HELP)
@click.version_option(__version__, prog_name="tiphys")
def main() -> None:
    """Kubernetes on this machine, in Python.

    \b
    tiphys up          start a cluster (under a second)
    kubectl get nodes  use it: kubectl finds it by itself
    tiphys down        remove it and every trace of it
    """


@main.command()
@NAME
@click.option(
    "--kubernetes-version",
    "version",
    callback=_version,
    metavar="1.N",
    help="Which version's API to serve, 1.25 to 1.37.  [default: the newest]",
)
@click.option(
    "--simulated", is_flag=True, default=None, help="Simulate the nodes: pods seem to run, no container is started."
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 5000),
    default=None,
    help="How many nodes; more than one are simulated.  [default: 1]",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=None,
    help="Port of the API server.  [default: 6443 or the next free]",
)
@click.option(
    "--apiserver-arg",
    "arguments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A flag of the API server, as upstream names it; may be repeated.",
)
@click.option(
    "--audit-policy-file", type=_FILE, hidden=True, help="The same as --apiserver-arg audit-policy-file=FILE."
)
@click.option("--audit-log-path", metavar="FILE", hidden=True, help="The same as --apiserver-arg audit-log-path=FILE.")
def up(
    name: str,
    version: tuple[int, int] | None,
    simulated: bool | None,
    nodes: int | None,
    port: int | None,
    arguments: tuple[str, ...],
    audit_policy_file: str | None,
    audit_log_path: str | None,
) -> None:
    """Start a cluster, or start it again with all that it had.

    Containers are real when you are root and crun or runc is installed; otherwise nodes are simulated and everything
    else is the same. kubectl uses the new cluster at once: it becomes the current context of your kubeconfig.
    """
    from tiphys.cli.serverflags import server_options
    from tiphys.cli.up import run_up
    from tiphys.cluster.up import Wishes

    audit = {"audit-policy-file": audit_policy_file, "audit-log-path": audit_log_path}
    given = [*arguments, *(f"{key}={value}" for key, value in audit.items() if value is not None)]
    run_up(Wishes(name, version, simulated, nodes or 0, port or 0, server_options(given)))


@main.command()
@NAME
def down(name: str) -> None:
    """Remove a cluster and every trace of it from this machine.

    Its pods, data, network and kubeconfig entries go. Works also when the cluster has crashed, or only parts are left.
    """
    from tiphys.cluster.down import remove_cluster

    if remove_cluster(name, lambda what: click.echo(f"removing {what}", err=True)):
        click.echo(f"cluster {name} is gone")
    else:
        click.echo(f"there is no cluster {name} and no trace of one")


@main.command()
@NAME
@OUTPUT
def status(name: str, output: str) -> None:
    """Show whether a cluster is well: its processes, API server, nodes and pods.

    The exit code is 0 when all of it is well, and 1 when something is not.
    """
    from tiphys.cli.status import show_status

    raise SystemExit(show_status(name, output))


@main.command()
@NAME
@click.option("--path", is_flag=True, help="Print where the file is, instead of its content.")
def kubeconfig(name: str, path: bool) -> None:
    """Print the administrator's kubeconfig, with which clients reach the cluster.

    \b
    export KUBECONFIG=$(tiphys kubeconfig --path)
    """
    from tiphys.cluster.config import Files, read_config

    read_config(name)
    file = Files.of(name).kubeconfig
    click.echo(str(file) if path else file.read_text(), nl=path)


@main.group()
def image() -> None:
    """Bring images onto the node without a registry."""


@image.command("load")
@NAME
@click.option("--as", "reference", default="", metavar="IMAGE", help="Name for an image that has none in the archive.")
@click.argument("file", type=click.Path(exists=True, allow_dash=True, readable=True))
def image_load(name: str, reference: str, file: str) -> None:
    """Load images from FILE: what `docker save` or `podman save` writes, or an OCI archive. - reads standard input.

    \b
    docker save my-app:1 | tiphys image load -
    kubectl create deployment my-app --image=my-app:1

    The cluster may be running. A tag of `latest` is always pulled unless the pod says imagePullPolicy: IfNotPresent.
    """
    from tiphys.cli.image import load_image

    load_image(name, file, reference)


@image.command("list")
@NAME
@OUTPUT
def image_list(name: str, output: str) -> None:
    """List the images on the node."""
    from tiphys.cli.image import list_images

    list_images(name, output)


@main.group()
def node() -> None:
    """Look at the nodes of a cluster."""


@node.command("list")
@NAME
@OUTPUT
def node_list(name: str, output: str) -> None:
    """List the nodes, whether they are ready and what runs on them."""
    from tiphys.cli.node import list_nodes

    list_nodes(name, output)


@main.command()
@OUTPUT
def version(output: str) -> None:
    """Print the versions of tiphys, and of Kubernetes that it can serve."""
    from tiphys.cluster.up import VERSIONS

    oldest, newest = (".".join(map(str, v)) for v in VERSIONS)
    if output == "json":
        import json

        click.echo(json.dumps({"tiphys": __version__, "kubernetes": {"oldest": oldest, "newest": newest}}))
    else:
        click.echo(f"tiphys {__version__}\nKubernetes {newest} (serves {oldest} to {newest})")
