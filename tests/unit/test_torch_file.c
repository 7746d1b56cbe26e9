/* SPDX-License-Identifier: MIT */
/*
 * What PyTorch's .pt files hold: tensors and dictionaries of torch.save, and broken pickles with the sentence
 * that each must give. The zip archive around them is in test_torch_archive.c.
 */
#include <string.h>

#include "../../src/formats/pickle.h"
#include "icae/torch_file.h"
#include "icae/torch_write.h"
#include "suites.h"
#include "torch_support.h"

static icae_error error;

/* ---- pickles, written out (octal, because a hexadecimal escape swallows the digits behind it) ---- */

#define STRING1(text) "X\1\0\0\0" text
#define DICT          "ccollections\nOrderedDict\n)R"
#define STORAGE(class, key, count)                                                             \
    "(X\7\0\0\0storagectorch\n" class "\nX\1\0\0\0" key "X\3\0\0\0cpu" count "tQ"
#define TENSOR(storage, offset, shape, strides)                                                \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset shape strides "\211" DICT "tR"
#define SIX         STORAGE("FloatStorage", "0", "K\6")
#define PAIR(a, b)  "K" a "K" b "\206"
#define WITH(value) "\200\2}" STRING1("a") value "s."

/* ---- what is read ---- */

START_TEST(reads_what_torch_saved) {
    icae_torch_file file;
    ck_ok(icae_torch_file_open(&file, TORCH_GOLDEN, &error));
    ck_assert_uint_eq(file.n_entries, 32);
    size_t tensors = 0;
    for (size_t i = 0; i < file.n_entries; i++) {
        const icae_torch_entry *entry = &file.entries[i];
        ck_assert_ptr_eq(icae_torch_file_find(&file, entry->name), entry);
        ck_assert(!i || strcmp(file.entries[i - 1].name, entry->name) < 0);
        ck_assert(entry->kind == ICAE_TORCH_TENSOR || entry->number == 0);
        tensors += entry->kind == ICAE_TORCH_TENSOR;
    }
    ck_assert_uint_eq(tensors, 9);
    const icae_torch_entry *table = icae_torch_file_find(&file, "memory_token_embed.weight");
    ck_assert_ptr_nonnull(table);
    ck_assert(table->rank == 2 && table->shape[0] == 11 && table->shape[1] == 64);
    ck_assert(table->dtype == ICAE_DTYPE_F32 && table->bytes == 11 * 64 * 4);
    ck_assert_ptr_null(icae_torch_file_find(&file, "memory_token_embed"));
    icae_torch_file_close(&file);
}
END_TEST

static const icae_torch_entry *read_one(icae_torch_file *file, const char *program,
                                        size_t bytes) {
    const char *path = stored_torch(test_folder("torch-one"), program, bytes, NULL);
    ck_ok(icae_torch_file_open(file, path, &error));
    ck_assert_uint_eq(file->n_entries, 1);
    ck_assert_str_eq(file->entries[0].name, "a");
    return &file->entries[0];
}

START_TEST(reads_views_of_a_storage) {
    icae_torch_file file;
    float first;
    const icae_torch_entry *a =
        read_one(&file, PROGRAM(WITH(TENSOR(SIX, "K\2", PAIR("\2", "\2"), PAIR("\2", "\1")))));
    ck_assert(a->kind == ICAE_TORCH_TENSOR && a->rank == 2 && a->bytes == 16);
    memcpy(&first, a->data, sizeof first);
    ck_assert(first == 2);
    icae_torch_file_close(&file);
    /* A dimension of 1 may have any stride; one of 0 leaves nothing to read. */
    a = read_one(&file,
                 PROGRAM(WITH(TENSOR(SIX, "K\3", PAIR("\1", "\3"), PAIR("\377", "\1")))));
    ck_assert(a->shape[0] == 1 && a->bytes == 12);
    icae_torch_file_close(&file);
    a = read_one(&file, PROGRAM(WITH(TENSOR(SIX, "K\6", PAIR("\0", "\3"), PAIR("\3", "\1")))));
    ck_assert(a->shape[0] == 0 && a->bytes == 0);
    icae_torch_file_close(&file);
    /* Newer versions of PyTorch give a seventh argument, metadata. */
    a = read_one(&file, PROGRAM(WITH("ctorch._utils\n_rebuild_tensor_v2\n(" SIX "K\0" PAIR(
                            "\2", "\3") PAIR("\3", "\1") "\211" DICT "NtR")));
    ck_assert(a->rank == 2 && a->bytes == 24);
    icae_torch_file_close(&file);
    /* A scalar, as a parameter. */
    a = read_one(&file, PROGRAM(WITH("ctorch._utils\n_rebuild_parameter\n" TENSOR(
                            SIX, "K\5", ")", ")") "\210" DICT "\207R")));
    ck_assert(a->rank == 0 && a->bytes == 4);
    icae_torch_file_close(&file);
}
END_TEST

/* Tied weights: two tensors of one storage, whose bytes are checked once. */
START_TEST(reads_two_tensors_of_one_storage) {
#define ROW(key, offset)                                                                       \
    "X\1\0\0\0" key TENSOR(SIX, offset, PAIR("\1", "\3"), PAIR("\3", "\1")) "s"
    icae_torch_file file;
    const char *path =
        stored_torch(test_folder("torch-tied"),
                     PROGRAM("\200\2}" ROW("a", "K\0") ROW("b", "K\3") "."), NULL);
    ck_ok(icae_torch_file_open(&file, path, &error));
    ck_assert_uint_eq(file.n_entries, 2);
    ck_assert_ptr_eq((const char *)file.entries[1].data,
                     (const char *)file.entries[0].data + 3 * sizeof(float));
    icae_torch_file_close(&file);
}
END_TEST

START_TEST(reads_every_type_and_names_what_is_none) {
    static const struct {
        const char *program;
        size_t bytes;
        icae_torch_kind kind;
        const char *type;
    } rows[] = {
        {PROGRAM(WITH(TENSOR(STORAGE("DoubleStorage", "0", "K\3"), "K\0", PAIR("\1", "\3"),
                             PAIR("\3", "\1")))),
         ICAE_TORCH_TENSOR, "DoubleStorage"},
        {PROGRAM(WITH(TENSOR(STORAGE("HalfStorage", "0", "K\14"), "K\0", PAIR("\1", "\3"),
                             PAIR("\3", "\1")))),
         ICAE_TORCH_TENSOR, "HalfStorage"},
        {PROGRAM(WITH(TENSOR(STORAGE("BFloat16Storage", "0", "M\14\0"), "K\0", PAIR("\1", "\3"),
                             PAIR("\3", "\1")))),
         ICAE_TORCH_TENSOR, "BFloat16Storage"},
        {PROGRAM(WITH(TENSOR(STORAGE("LongStorage", "0", "J\3\0\0\0"), "K\0", PAIR("\1", "\3"),
                             PAIR("\3", "\1")))),
         ICAE_TORCH_OTHER, "LongStorage"},
        {PROGRAM(WITH("G\277\370\0\0\0\0\0\0")), ICAE_TORCH_NUMBER, "number"},
        {PROGRAM(WITH("\212\2\377\377")), ICAE_TORCH_OTHER, "whole number"},
        {PROGRAM(WITH("\212\2\377\177")), ICAE_TORCH_OTHER, "whole number"},
        {PROGRAM(WITH("\212\0")), ICAE_TORCH_OTHER, "whole number"},
        {PROGRAM(WITH("N")), ICAE_TORCH_OTHER, "None"},
        {PROGRAM(WITH("\210")), ICAE_TORCH_OTHER, "truth value"},
        {PROGRAM(WITH("](K\1K\2eNa")), ICAE_TORCH_OTHER, "list"},
        {PROGRAM(WITH(")")), ICAE_TORCH_OTHER, "tuple"},
        {PROGRAM(WITH("}(" STRING1("x") "K\1u")), ICAE_TORCH_OTHER, "dictionary"},
        {PROGRAM(WITH(STRING1("z"))), ICAE_TORCH_OTHER, "string"},
        /* protocol 4: frame, short strings, MEMOIZE, STACK_GLOBAL, LONG_BINPUT and its get */
        {PROGRAM("\200\4\225\66\0\0\0\0\0\0\0\214\13collections\224\214\13OrderedDict\224"
                 "\223\224)R(\214\1aG\0\0\0\0\0\0\0\0u}bj\2\0\0\000)Rr\5\0\0\000b."),
         ICAE_TORCH_NUMBER, "number"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        icae_torch_file file;
        const icae_torch_entry *a = read_one(&file, rows[i].program, rows[i].bytes);
        ck_assert_msg(a->kind == rows[i].kind, "row %zu", i);
        ck_assert_str_eq(a->type, rows[i].type);
        if (i == 4) ck_assert(a->number == -1.5);
        icae_torch_file_close(&file);
    }
}
END_TEST

/* What is written is read: all of the archive and the pickle, until its end shows a tensor. */
START_TEST(reads_tensors_of_every_type_that_is_written) {
    static const icae_dtype dtypes[] = {ICAE_DTYPE_F32, ICAE_DTYPE_F16, ICAE_DTYPE_BF16};
    static const double numbers[6];
    const char *path = test_path(test_folder("torch-written"), "x.pt");
    for (size_t i = 0; i < 3; i++) {
        icae_torch_file file;
        ck_ok(icae_torch_write(path, dtypes[i], 2, 3, numbers, &error));
        ck_refused(icae_torch_file_open(&file, path, &error),
                   "holds a tensor, expected a dictionary");
    }
}
END_TEST

/* ---- what is refused ---- */

static const struct {
    const char *program;
    size_t bytes;
    const char *sentence;
    icae_status status;
} broken[] = {
    /* names and calls */
    {PROGRAM(WITH("cos\nsystem\n" STRING1("x") "\205R")), "names os.system", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("c__builtin__\neval\n" STRING1("x") "\205R")), "names __builtin__.eval",
     ICAE_UNSUPPORTED},
    {PROGRAM(WITH("\214\2os\214\6system\223)R")), "names os.system", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("ctorch\nUntypedStorage\n")), "names torch.UntypedStorage", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("ctorch._utils\n_rebuild_tensor_v3\n")),
     "names torch._utils._rebuild_tensor_v3", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("cos\033[2J\nx\n")), "names os?[2J.x", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("(ios\nsystem\n")), "opcode INST", ICAE_UNSUPPORTED},
    {PROGRAM(WITH(DICT ")\201")), "opcode NEWOBJ stands in no file", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("C\1x")), "opcode SHORT_BINBYTES", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("N2")), "opcode DUP", ICAE_UNSUPPORTED},
    {PROGRAM(WITH("\377")), "0xff is no opcode", ICAE_FORMAT},
    {PROGRAM(WITH("K\1)R")), "calls a whole number, which is no function", ICAE_FORMAT},
    {PROGRAM(WITH("ctorch\nFloatStorage\n)R")), "makes a torch.FloatStorage of its own",
     ICAE_UNSUPPORTED},
    {PROGRAM(WITH("ccollections\nOrderedDict\n]\205R")), "makes an OrderedDict of something",
     ICAE_UNSUPPORTED},
    {PROGRAM(WITH("ccollections\nOrderedDict\n]R")), "makes an OrderedDict of something",
     ICAE_UNSUPPORTED},
    {PROGRAM(WITH("ctorch._utils\n_rebuild_tensor_v2\n)R")), "not given 6 or 7 arguments",
     ICAE_FORMAT},
    {PROGRAM(WITH("ctorch._utils\n_rebuild_parameter\n)R")), "not given a tensor", ICAE_FORMAT},
    {PROGRAM(WITH("K\1K\2\223")), "named by something else than two strings", ICAE_FORMAT},
    {PROGRAM(WITH("K\1}b")), "gives a state to a whole number", ICAE_UNSUPPORTED},
    /* storages */
    {PROGRAM(WITH("K\1Q")), "a persistent id is not ('storage', class", ICAE_FORMAT},
    {PROGRAM(WITH(STORAGE("FloatStorage", "1", "K\6"))), "storage '1' are missing",
     ICAE_FORMAT},
    {PROGRAM(WITH(STORAGE("FloatStorage", "0", "K\7"))),
     "'0' has 24 bytes, not those of 7 values of a FloatStorage", ICAE_FORMAT},
    {PROGRAM(WITH(STORAGE("DoubleStorage", "0", "K\6"))), "not those of 6 values of a Double",
     ICAE_FORMAT},
    {PROGRAM(WITH(STORAGE("FloatStorage", "0", "\212\10\6\0\0\0\0\0\0\100"))),
     "not those of 4611686018427387910 values", ICAE_FORMAT},
    {PROGRAM(WITH(STORAGE("FloatStorage", "0", "J\377\377\377\377"))), "a persistent id is not",
     ICAE_FORMAT},
    /* tensors */
    {PROGRAM(WITH(TENSOR(SIX, "K\0", PAIR("\2", "\4"), PAIR("\4", "\1")))),
     "reach outside its storage of 6 values", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR(SIX, "K\1", PAIR("\2", "\3"), PAIR("\3", "\1")))),
     "reach outside its storage", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", PAIR("\2", "\3"), PAIR("\4", "\1")))),
     "reach outside its storage", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR(SIX, "K\7", PAIR("\0", "\3"), PAIR("\3", "\1")))),
     "reach outside its storage", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", "\212\10\0\0\0\0\0\0\0\100\212\10\0\0\0\0\0\0\0\100\206",
                         PAIR("\0", "\0")))),
     "reach outside its storage", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", PAIR("\2", "\2"),
                         "\212\10\377\377\377\377\377\377\377\177K\1\206"))),
     "reach outside its storage", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", PAIR("\2", "\3"), PAIR("\1", "\2")))),
     "tensor 'a' are not in row order", ICAE_UNSUPPORTED},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", PAIR("\377", "\377"), PAIR("\0", "\0")))),
     "tensor 'a' are not in row order", ICAE_UNSUPPORTED},
    {PROGRAM(WITH(TENSOR(SIX, "J\377\377\377\377", PAIR("\2", "\3"), PAIR("\3", "\1")))),
     "not made of a storage and an offset", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR("N", "K\0", PAIR("\2", "\3"), PAIR("\3", "\1")))),
     "not made of a storage and an offset", ICAE_FORMAT},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", "(K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1t"))),
     "two tuples of up to 4 whole numbers", ICAE_UNSUPPORTED},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", "K\2J\377\377\377\377\206", PAIR("\3", "\1")))),
     "two tuples of up to 4 whole numbers", ICAE_UNSUPPORTED},
    {PROGRAM(WITH(TENSOR(SIX, "K\0", PAIR("\2", "\3"), "K\1\205"))),
     "two tuples of up to 4 whole numbers", ICAE_UNSUPPORTED},
    /* the stack, marks and the memo */
    {PROGRAM("\200\2s."), "takes more values than there are on the stack", ICAE_FORMAT},
    {PROGRAM("\200\2}}s."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2}(s."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2(u."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2}u."), "has no MARK that belongs to it", ICAE_FORMAT},
    {PROGRAM("\200\2\206."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2q\0."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2R."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2b."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2}b."), "takes more values", ICAE_FORMAT},
    {PROGRAM("\200\2}(Nu."), "a key of a dictionary has no value", ICAE_FORMAT},
    {PROGRAM("\200\2}Na."), "adds to a dictionary, expected a list", ICAE_FORMAT},
    {PROGRAM("\200\2](NNu."), "adds to a list, expected a dictionary", ICAE_FORMAT},
    {PROGRAM("\200\2h\0."), "nothing was put into the memo's place 0", ICAE_FORMAT},
    {PROGRAM("\200\2}q\1h\2."), "nothing was put into the memo's place 2", ICAE_FORMAT},
    {PROGRAM("\200\2}j\377\377\377\377."), "memo's place 4294967295", ICAE_FORMAT},
    {PROGRAM("\200\2}r\377\377\377\377."), "memo's place 4294967295 is past", ICAE_FORMAT},
    {PROGRAM("\200\2."), "ends with 0 values, expected 1", ICAE_FORMAT},
    {PROGRAM("\200\2}}."), "ends with 2 values, expected 1", ICAE_FORMAT},
    {PROGRAM("\200\2}(."), "ends with 1 values, expected 1", ICAE_FORMAT},
    {PROGRAM("\200\2}.N"), "1 bytes follow the end of the pickle", ICAE_FORMAT},
    /* lengths */
    {PROGRAM(""), "is no pickle of protocol 2 to 5", ICAE_FORMAT},
    {PROGRAM("}."), "is no pickle of protocol 2 to 5", ICAE_FORMAT},
    {PROGRAM("\200\1}."), "is pickle protocol 1; expected 2 to 5", ICAE_UNSUPPORTED},
    {PROGRAM("\200\6}."), "is pickle protocol 6", ICAE_UNSUPPORTED},
    {PROGRAM("\200\2}"), "the pickle is cut off", ICAE_FORMAT},
    {PROGRAM("\200\2J\0\0"), "the pickle is cut off", ICAE_FORMAT},
    {PROGRAM("\200\2G\0\0"), "the pickle is cut off", ICAE_FORMAT},
    {PROGRAM("\200\2\212\4\0"), "the pickle is cut off", ICAE_FORMAT},
    {PROGRAM("\200\2cos"), "a name is cut off", ICAE_FORMAT},
    {PROGRAM("\200\2cos\nsystem"), "a name is cut off", ICAE_FORMAT},
    {PROGRAM("\200\2X\377\377\377\377abc"), "a string of 4294967295 bytes is cut off",
     ICAE_FORMAT},
    {PROGRAM("\200\4\215\377\377\377\377\377\377\377\377abc"),
     "a string of 18446744073709551615 bytes is cut off", ICAE_FORMAT},
    {PROGRAM("\200\4\225\377\377\377\377\377\377\377\177}."),
     "a frame of 9223372036854775807 bytes is cut off", ICAE_FORMAT},
    {PROGRAM(WITH("\212\11\0\0\0\0\0\0\0\0\1")), "a whole number has over 64 bits",
     ICAE_UNSUPPORTED},
    /* the dictionary */
    {PROGRAM("\200\2]."), "holds a list, expected a dictionary", ICAE_UNSUPPORTED},
    {PROGRAM("\200\2" TENSOR(SIX, "K\0", PAIR("\2", "\3"), PAIR("\3", "\1")) "."),
     "holds a tensor, expected a dictionary", ICAE_UNSUPPORTED},
    {PROGRAM("\200\2}K\1Ns."), "a key is a whole number, expected a string", ICAE_UNSUPPORTED},
    {PROGRAM("\200\2}" STRING1("\0") "Ns."), "a key is empty or holds a 0 byte", ICAE_FORMAT},
    {PROGRAM("\200\2}(" STRING1("a") "N" STRING1("b") "N" STRING1("a") "Nu."),
     "the key 'a' stands twice", ICAE_FORMAT},
    {PROGRAM("\200\2}(" STRING1("a") "q\1Nh\1Nu."), "the key 'a' stands twice", ICAE_FORMAT},
};

START_TEST(refuses_broken_pickles_with_the_reason) {
    const char *folder = test_folder("torch-broken");
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        refuses_torch(stored_torch(folder, broken[i].program, broken[i].bytes, NULL),
                      broken[i].sentence, broken[i].status);
    }
}
END_TEST

/* An unfinished archive of n repetitions; every way to nest is met. */
START_TEST(refuses_deep_nesting) {
    static const struct {
        const char *again, *end;
    } ways[] = {{"(", ""}, {"\205", ""}, {"](", ""}};
    const char *folder = test_folder("torch-deep");
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        icae_text program = {0};
        icae_text_append_string(&program, "\200\2)");
        for (int n = 0; n < 100000; n++)
            icae_text_append_string(&program, ways[i].again);
        refuses_torch(stored_torch(folder, program.data, program.length, NULL),
                      "nested over 64 deep", ICAE_FORMAT);
        icae_text_release(&program);
    }
    icae_text program = {0};
    icae_text_append_string(&program, "\200\2");
    for (int n = 0; n < 1000; n++)
        icae_text_append_char(&program, ']');
    for (int n = 0; n < 999; n++)
        icae_text_append_char(&program, 'a');
    icae_text_append_char(&program, '.');
    refuses_torch(stored_torch(folder, program.data, program.length, NULL),
                  "nested over 64 deep", ICAE_FORMAT);
    icae_text_release(&program);
}
END_TEST

/* Held against the limit before a byte is looked at. */
START_TEST(refuses_pickles_of_over_64_mebibytes) {
    pickle p;
    pickle_ref top;
    ck_refused(icae_pickle_read(&p, "x.pt: data.pkl", (const unsigned char *)"\200\2}.",
                                (64u << 20) + 1, NULL, NULL, &top, &error),
               "x.pt: data.pkl: has 67108865 bytes of pickle, at most 67108864 are read");
    icae_pickle_release(&p);
}
END_TEST

SUITE_OF(torch_file, 60, reads_what_torch_saved, reads_views_of_a_storage,
         reads_two_tensors_of_one_storage, reads_every_type_and_names_what_is_none,
         refuses_broken_pickles_with_the_reason, refuses_deep_nesting,
         refuses_pickles_of_over_64_mebibytes, reads_tensors_of_every_type_that_is_written)
