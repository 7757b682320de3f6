# SPDX-License-Identifier: Apache-2.0
# x64 functions whose unwind data is chained, as optimisers make them: a part of a function that saves more registers
# later (shrink-wrapping), and a cold part that lies apart from its function and borrows its unwind data.

# Notes the function in the shadow stack (see truth.h).
.macro ENTER name
        movq    %gs:0x28, %rax
        imulq   $40, (%rax), %r10
        incq    (%rax)
        leaq    48(%rax,%r10), %rax
        movq    %rsp, (%rax)
        movq    (%rsp), %r10
        movq    %r10, 8(%rax)
        leaq    \name(%rip), %r10
        movq    %r10, 16(%rax)
        movq    $0, 24(%rax)
        movq    $0, 32(%rax)
.endm

# Calls the plan's next rung: the plan in rcx, its index at +0, its rungs at +8.
.macro NEXT
        movslq  (%rcx), %rax
        incl    (%rcx)
        callq   *8(%rcx,%rax,8)
.endm

        .section .rdata,"dr"
name_chained: .asciz "chained"
name_split:   .asciz "split"

# All unwind data here is written out by hand: assemblers let the entries of chained parts overlap their function's.
        .text
        .globl  chained
        .def    chained; .scl 2; .type 32; .endef
chained:
        ENTER   name_chained
        pushq   %rbx
.Lchained_pushed_rbx:
        subq    $48, %rsp
.Lchained_allocated:
        movq    %rcx, %rbx
        testq   %rcx, %rcx
        je      .Lchained_out
.Lchained_more:
        movq    %rsi, 72(%rsp)
.Lchained_saved_rsi:
        movq    %rbp, 80(%rsp)
.Lchained_saved_rbp:
        movl    $0x51, %esi
        movl    $0xD1, %ebp
        NEXT
        addl    %esi, %eax
        addl    %ebp, %eax
        movq    72(%rsp), %rsi
        movq    80(%rsp), %rbp
.Lchained_out:
        addq    $48, %rsp
        popq    %rbx
        retq
.Lchained_end:

# The cold part's entry says only "as in the hot part".
        .globl  split
        .def    split; .scl 2; .type 32; .endef
split:
        ENTER   name_split
.Lsplit_prologue:
        pushq   %rbp
.Lsplit_pushed_rbp:
        pushq   %r12
.Lsplit_pushed_r12:
        subq    $104, %rsp
.Lsplit_allocated:
        leaq    32(%rsp), %rbp
.Lsplit_framed:
        movq    $0x12, %r12
        jmp     .Lcold
.Lback:
        addq    %r12, %rax
        leaq    72(%rbp), %rsp
        popq    %r12
        popq    %rbp
        retq
.Lsplit_end:

        .section .text$cold,"xr"
.Lcold:
        subq    $256, %rsp
        NEXT
        addq    $256, %rsp
        jmp     .Lback
.Lcold_end:

        .section .xdata,"dr"
        .p2align 2
.Lchained_info:
        .byte   1                               # version 1, no flags
        .byte   .Lchained_allocated - chained   # size of the prologue
        .byte   2, 0                            # codes; no frame register
        .byte   .Lchained_allocated - chained, 2 | (5 << 4)     # ALLOC_SMALL 48
        .byte   .Lchained_pushed_rbx - chained, 0 | (3 << 4)    # PUSH_NONVOL rbx
.Lchained_more_info:
        .byte   1 | (4 << 3)                    # version 1, chained
        .byte   .Lchained_saved_rbp - .Lchained_more
        .byte   4, 0
        .byte   .Lchained_saved_rbp - .Lchained_more, 4 | (5 << 4)      # SAVE_NONVOL rbp
        .short  80 / 8
        .byte   .Lchained_saved_rsi - .Lchained_more, 4 | (6 << 4)      # SAVE_NONVOL rsi
        .short  72 / 8
        .long   chained@IMGREL, .Lchained_more@IMGREL, .Lchained_info@IMGREL
.Lchained_out_info:
        .byte   1 | (4 << 3), 0, 0, 0
        .long   chained@IMGREL, .Lchained_more@IMGREL, .Lchained_info@IMGREL
.Lsplit_info:
        .byte   1                               # version 1, no flags
        .byte   .Lsplit_framed - split          # size of the prologue
        .byte   4                               # codes
        .byte   5 | (2 << 4)                    # frame register rbp, 32 bytes above rsp
        .byte   .Lsplit_framed - split, 3       # SET_FPREG
        .byte   .Lsplit_allocated - split, 2 | (12 << 4)        # ALLOC_SMALL 104
        .byte   .Lsplit_pushed_r12 - split, 0 | (12 << 4)       # PUSH_NONVOL r12
        .byte   .Lsplit_pushed_rbp - split, 0 | (5 << 4)        # PUSH_NONVOL rbp
.Lcold_info:
        .byte   1 | (4 << 3)                    # version 1, chained
        .byte   0, 0, 5 | (2 << 4)
        .long   split@IMGREL, .Lsplit_end@IMGREL, .Lsplit_info@IMGREL

        .section .pdata,"dr"
        .p2align 2
        .long   chained@IMGREL, .Lchained_more@IMGREL, .Lchained_info@IMGREL
        .long   .Lchained_more@IMGREL, .Lchained_out@IMGREL, .Lchained_more_info@IMGREL
        .long   .Lchained_out@IMGREL, .Lchained_end@IMGREL, .Lchained_out_info@IMGREL
        .long   split@IMGREL, .Lsplit_end@IMGREL, .Lsplit_info@IMGREL
        .long   .Lcold@IMGREL, .Lcold_end@IMGREL, .Lcold_info@IMGREL
