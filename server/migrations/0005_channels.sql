-- The newest channel document of every model, as it was signed. Before, they were files in the data directory, which only one
-- server could see.
CREATE TABLE channels (
    compatible TEXT    PRIMARY KEY NOT NULL,
    counter    INTEGER NOT NULL,
    document   TEXT    NOT NULL
) STRICT;
