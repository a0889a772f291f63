-- What happened once and stays true. `operators`: an operator had a token, so that being on the server's own machine is no longer
-- enough, also after the last token was taken back.
CREATE TABLE marks (
    name TEXT    PRIMARY KEY NOT NULL,
    at   INTEGER NOT NULL
) STRICT;

INSERT INTO marks (name, at) SELECT 'operators', created_at FROM operators ORDER BY created_at LIMIT 1;
