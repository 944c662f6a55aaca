-- Texts are compressed with zstd: prompts and answers take a half to a third of the room, and are written and read in less time.
CREATE TABLE pair_compressed (
    run_id  VARCHAR NOT NULL,
    pair_id VARCHAR NOT NULL,
    body    VARCHAR USING COMPRESSION zstd NOT NULL
);
INSERT INTO pair_compressed SELECT run_id, pair_id, body FROM pair;
DROP TABLE pair;
ALTER TABLE pair_compressed RENAME TO pair;
