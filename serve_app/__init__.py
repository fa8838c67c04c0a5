"""The API virtual node: routes, errors, command line."""
