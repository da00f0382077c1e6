import click


@click.command("generate")
def command():
    """TODO"""
