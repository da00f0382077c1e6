import click


@click.command("quickstart")
def command():
    """TODO"""
