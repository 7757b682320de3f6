# SPDX-License-Identifier: Apache-2.0
"""Many dumps at once, on dask.distributed: `throwstack scan`.

    scan_inputs     the files to examine, from paths, directories, globs and lists
    scan_settings   what changes an answer: options, and the files that are given beside the dumps
    dump_record     what is known of one dump after it was examined; kept as one file, a part
    part_store      the directory of parts, written so that a killed run leaves whole parts only
    results_lock    one scan at a time writes to a directory of results
    examine_dump    one dump, examined by the library: gives a record
    examiner_main   the process that examines dumps one after the other
    examiner        starts that process, gives it dumps, and ends it when it takes too long or too much memory
    scan_task       what a Dask worker does with one dump
    scan_cluster    the workers: a cluster of this machine's own, or one that somebody else has started
    run_scan        the whole: which dumps are still to do, and what comes of them
    table_columns, table_rows, table_files     Parquet tables and lists, made from the parts

Dask workers examine nothing themselves. Each has a process for that, because a dump may end the process that examines
it, and because a process that hangs can be killed while a thread of a worker cannot.
"""
