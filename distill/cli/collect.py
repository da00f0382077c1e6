import click


@click.command("collect")
def command():
    """TODO"""
