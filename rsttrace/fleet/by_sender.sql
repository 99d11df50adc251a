-- What the sender itself saw leave is proved to be its own: of its TCP or its firewall; or, written
-- through a raw socket, of one of its programs in the name of a connection.
INSERT INTO other_ends
    (node, run, key, time, fate, other_node, other_run, other_key, other_kind, translated, delta_s,
     origin, confidence, revision)
SELECT
    node, run, key, time, 'left', found_node, found_run, found_key, found_kind, found_translated,
    delta_s, if(found_kind = {raw:String}, 'forged', 'peer'), 1., {revision:UInt64}
FROM ({matched})
