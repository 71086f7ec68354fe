def show(outs, as_json):
    return ""
