"""The `tiphys` command: what a person types. Every command's help is written for somebody who is new to it."""

from __future__ import annotations

import click

from tiphys import __version__
from tiphys.base.errors import TiphysError


class _Group(click.Group):
    """Turns the project's errors into one line on standard error, never a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TiphysError as error:
            raise click.ClickException(str(error)) from None


NAME = click.option("--name", default="tiphys", show_default=True, help="Which cluster of this machine.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tiphys")
def main() -> None:
    """Kubernetes on this machine, in Python: `tiphys up`, then use kubectl."""


@main.command()
@NAME
@click.option(
    "--kubernetes-version", "version", default="1.37", show_default=True, help="The API to serve: 1.25 to 1.37."
)
@click.option("--simulated", is_flag=True, help="Simulate nodes even where containers could run.")
@click.option("--nodes", default=1, show_default=True, help="How many nodes; more than one are simulated.")
@click.option("--port", default=0, help="Port of the API server  [default: 6443, or the next free one]")
def up(name: str, version: str, simulated: bool, nodes: int, port: int) -> None:
    """Start a cluster, or start it again with all that it had."""
    from tiphys.cli.up import run_up

    run_up(name, version, simulated, nodes, port)


@main.command()
@NAME
def down(name: str) -> None:
    """Remove a cluster and every trace of it from this machine."""
    from tiphys.cluster.down import remove_cluster

    remove_cluster(name, lambda what: click.echo(f"removing {what}", err=True))
    click.echo(f"cluster {name} is gone")


@main.command()
@NAME
@click.option("--path", is_flag=True, help="Print the file's path instead of its content.")
def kubeconfig(name: str, path: bool) -> None:
    """Print the administrator's kubeconfig."""
    from tiphys.cluster.config import Files, read_config

    read_config(name)
    file = Files.of(name).kubeconfig
    click.echo(str(file) if path else file.read_text(), nl=path)
