import click


@click.command("show")
def command():
    """TODO"""
