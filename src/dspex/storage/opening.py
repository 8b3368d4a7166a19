def open_database(settings): raise NotImplementedError
