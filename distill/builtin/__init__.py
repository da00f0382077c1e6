"""The built-in plugins. They use the façade only, like any other plugin."""
