def results(found, command, machine):
    return {}


def write(results, here):
    pass
