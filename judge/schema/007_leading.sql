-- Two more tables derived from `comparison` when a run is brought in, so that filters and sorts over ten million rows
-- need not read a column of every row (judge/store/rollups.py writes both; canary pairs are in neither).
--
-- How many comparisons every cell of `rollup` has by outcome ('invalid': no verdict), by whether the two orders differ,
-- and by whether the judge leans to the side that the label does not name. Only numbers above 0 have a row; a column
-- (or a pair of columns) without any row was not counted.
CREATE TABLE tally (
    run_id  VARCHAR NOT NULL,
    facet   VARCHAR NOT NULL,
    value   VARCHAR NOT NULL,
    across  VARCHAR NOT NULL,
    other   VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL,
    flipped BOOLEAN NOT NULL,
    against BOOLEAN NOT NULL,
    n       BIGINT NOT NULL
);

-- The first rows of a large run under each order that is offered: `place` counts from 0, ties stand in the order of
-- judging. They are copies, not row numbers, because the row numbers of a run may change when another run is replaced.
CREATE TABLE leading_row (
    run_id          VARCHAR NOT NULL,
    sort            VARCHAR NOT NULL,
    place           INTEGER NOT NULL,
    pair_id         VARCHAR NOT NULL,
    repeat          INTEGER NOT NULL,
    category        VARCHAR NOT NULL,
    metadata        VARCHAR NOT NULL,
    label           VARCHAR,
    outcome         VARCHAR,
    invalid         VARCHAR,
    preference      DOUBLE,
    consistent      BOOLEAN,
    confidence      DOUBLE,
    cf_outcome      VARCHAR,
    bf_outcome      VARCHAR,
    candidate_chars INTEGER NOT NULL,
    baseline_chars  INTEGER NOT NULL,
    flags           VARCHAR NOT NULL,
    cost            DOUBLE
);
