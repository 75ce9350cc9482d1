# SPDX-License-Identifier: GPL-2.0-or-later
"""What is changed in QEMU 10.0 before it is built: flaws of the emulated CPU that looked like KVM's or hid them.

`check` names the program in qemu-selftest/ that diverges without the edit, in lab:amd-native unless it takes a guest. "SDM" is Intel's manual;
what AMD does otherwise is said."""

from ..apply import LAB, Change, Edit, after, before, swap

FPU = "target/i386/tcg/fpu_helper.c"
EMIT = "target/i386/tcg/emit.c.inc"
DECODE = "target/i386/tcg/decode-new.c.inc"
TRANSLATE = "target/i386/tcg/translate.c"
HELPERS = "target/i386/helper.h"

EDITS = [
    Edit("build", "What is not in Debian's tarball, and what this machine does not need: firmware of other vendors, the "
         "test suite's Python packages, and all devices but the machine's own.", LAB, (
             swap("meson.build", "edk2_targets = [ 'arm-softmmu', 'aarch64-softmmu', 'i386-softmmu', 'x86_64-softmmu', "
                  "'riscv64-softmmu', 'loongarch64-softmmu' ]", "edk2_targets = []"),
             swap("pythondeps.toml", 'pycotap = { accepted = ">=1.1.0", installed = "1.3.1" }\n', ""),
             swap("configs/devices/x86_64-softmmu/default.mak", "include ../i386-softmmu/default.mak\n",
                  "CONFIG_I440FX=y\nCONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_SERIAL=y\n"),
         )),

    Edit("x87-stack", "Stack overflow and underflow: IE, SF and C1, the default NaN if IE is masked, nothing done if it is "
         "not (SDM vol. 1, 8.5.1.1). C1 is cleared by what else may report such a fault.", "x87-stack", (
             after(HELPERS, "DEF_HELPER_1(fpush, void, env)\n", "DEF_HELPER_3(x87_stack, i32, env, i32, tl)\n"),
             before(FPU, "void helper_fpush(CPUX86State *env)\n", """/*
 * Before an instruction that reads the registers of bits 7:0 in `uses` (bit i: ST(i)), pushes if bit 8, gives ST(0) a
 * new value too if bit 9, changes only the sign if bit 10, and only stores ST(0) if bit 11. Whether it is to be done: not so after an unmasked fault,
 * nor where the default NaN was all of the masked response. Elsewhere an operand that lacks is given that value, which
 * leads to the response of each instruction (but for the one NaN that is chosen of two). Bits 23:16 are the size of the
 * operand in memory, at `ptr`: its faults come before anything is changed.
 */
uint32_t helper_x87_stack(CPUX86State *env, uint32_t uses, target_ulong ptr)
{
    X86Access ac;
    bool pushes = uses & 0x100, writes_st0 = uses & 0x200;
    bool underflow = false;
    bool overflow = pushes && !env->fptags[(env->fpstt - 1) & 7];
    int i;

    if (uses >> 16) {
        access_prepare(&ac, env, ptr, uses >> 16, uses & 0x800 ? MMU_DATA_STORE : MMU_DATA_LOAD, GETPC());
    }
    for (i = 0; i < 8; i++) {
        underflow |= (uses >> i & 1) && env->fptags[(env->fpstt + i) & 7];
    }
    env->fpus &= ~0x200;
    if (!overflow && !underflow) {
        return 1;
    }
    if (!underflow) {
        env->fpus |= 0x200;
    }
    fpu_set_exception(env, FPUS_IE | FPUS_SF);
    if (!(env->fpuc & FPUS_IE)) {
        return 0;
    }
    if (pushes) {
        if (writes_st0) {
            ST0 = floatx80_default_nan(&env->fp_status);
            env->fptags[env->fpstt] = 0;
        }
        fpush(env);
        ST0 = floatx80_default_nan(&env->fp_status);
        return 0;
    }
    for (i = 0; i < 8 && !(uses & 0x800); i++) {
        if ((uses >> i & 1) && env->fptags[(env->fpstt + i) & 7]) {
            ST(i) = floatx80_default_nan(&env->fp_status);
            env->fptags[(env->fpstt + i) & 7] = 0;
        }
    }
    return !(uses & 0x400);
}

"""),
             before(TRANSLATE, "static void gen_x87(DisasContext *s, X86DecodedInsn *decode)\n{\n", """/*
 * What helper_x87_stack() is to look at; -1 for instructions that need no register and leave C1 alone.
 */
static int x87_uses(int op, bool memory, int rm)
{
    const int push = 0x100, writes_st0 = 0x200, sign = 0x400, stores = 0x800, both = 1 | 1 << rm;

    if (memory) {
        switch (op) {
        case 0x00 ... 0x07: case 0x10 ... 0x17: case 0x20 ... 0x27: case 0x30 ... 0x37: /* arithmetic */
            return 1;
        case 0x0a: case 0x0b: case 0x19 ... 0x1b: case 0x29 ... 0x2b: case 0x39 ... 0x3b: /* fst, fist, fistt */
        case 0x1f: case 0x3e: case 0x3f: /* fstpt, fbstp, fistpll */
            return 1 | stores;
        case 0x08: case 0x18: case 0x28: case 0x38: case 0x1d: case 0x3c: case 0x3d: /* fld, fild, fbld */
            return push;
        default:
            return -1;
        }
    }
    switch (op) {
    case 0x08: /* fld sti */
        return push | 1 << rm;
    case 0x0c: /* fchs, fabs, ftst, fxam */
        return rm == 5 ? -1 : rm < 2 ? 1 | sign : 1;
    case 0x0d: /* constants */
        return push;
    case 0x0e:
        switch (rm) {
        case 0: /* f2xm1 */
            return 1;
        case 2: case 4: /* fptan, fxtract */
            return 1 | push | writes_st0;
        case 6: case 7: /* fdecstp, fincstp */
            return 0;
        default: /* fyl2x, fpatan, fprem1 */
            return 3;
        }
    case 0x0f:
        switch (rm) {
        case 0: case 1: case 5: /* fprem, fyl2xp1, fscale */
            return 3;
        case 3: /* fsincos */
            return 1 | push | writes_st0;
        default:
            return 1;
        }
    case 0x2a: case 0x2b: case 0x0b: case 0x3a: case 0x3b: /* fst, fstp sti */
        return 1 | stores;
    case 0x28: case 0x38: /* ffree */
        return 0;
    case 0x0a: case 0x1c: case 0x3c: /* fnop, fclex and fninit, fnstsw */
        return -1;
    default: /* all others are of ST(0) and ST(i) */
        return both;
    }
}

"""),
             before(TRANSLATE, "static void gen_x87(DisasContext *s, X86DecodedInsn *decode)\n{\n", """/* The size of an operand in memory. */
static int x87_size(int op)
{
    switch (op) {
    case 0x1d: case 0x1f: case 0x3c: case 0x3e:
        return 10;
    case 0x20 ... 0x2b: case 0x3d: case 0x3f:
        return 8;
    case 0x30 ... 0x3b:
        return 2;
    default:
        return 4;
    }
}

static void gen_x87_stack(DisasContext *s, int uses, TCGv ptr, TCGLabel *skip)
{
    if (uses >= 0) {
        TCGv_i32 go_on = tcg_temp_new_i32();

        gen_helper_x87_stack(go_on, tcg_env, tcg_constant_i32(uses), ptr);
        tcg_gen_brcondi_i32(TCG_COND_EQ, go_on, 0, skip);
    }
}

"""),
             after(TRANSLATE, "    mod = (modrm >> 6) & 3;\n    rm = modrm & 7;\n"
                   "    op = ((b & 7) << 3) | ((modrm >> 3) & 7);\n", """    skip = gen_new_label();
    uses = x87_uses(op, mod != 3, rm);
"""),
             after(TRANSLATE, "    bool update_fip = true;\n    int b = decode->b;\n", "    TCGLabel *skip;\n    int uses;\n    bool flags = false;\n"),
             before(TRANSLATE, "        switch (op) {\n        case 0x00 ... 0x07: /* fxxxs */\n",
                    "        gen_x87_stack(s, uses < 0 ? uses : uses | x87_size(op) << 16, s->A0, skip);\n"),
             after(TRANSLATE, "        /* register float ops */\n        int opreg = rm;\n\n", """        if (op == 0x1d || op == 0x1e || op == 0x3d || op == 0x3e || (op & 0x34) == 0x10) {
            flags = true;
            gen_update_cc_op(s);
        }
        gen_x87_stack(s, uses, tcg_constant_tl(0), skip);
"""),
             before(TRANSLATE, "    if (update_fip) {\n        tcg_gen_ld_i32(s->tmp2_i32, tcg_env,\n"
                    "                       offsetof(CPUX86State, segs[R_CS].selector));\n", """    if (flags) {
        /* EFLAGS were read or written, or not: only at run time is known in which form they are. */
        gen_update_cc_op(s);
    }
    gen_set_label(skip);
    if (flags) {
        assume_cc_op(s, CC_OP_DYNAMIC);
    }
"""),
             swap(TRANSLATE, "    return;\n\n illegal_op:\n    gen_illegal_opcode(s);\n}\n\nstatic void gen_multi0F",
                  "    return;\n\n illegal_op:\n    gen_set_label(skip);\n    gen_illegal_opcode(s);\n}\n\nstatic void gen_multi0F"),
             # A store gives out the default NaN for an empty register, which keeps what it holds.
             after(FPU, "#define ST1    ST(1)\n", "#define STORED_ST0 (env->fptags[env->fpstt] ? "
                   "floatx80_default_nan(&env->fp_status) : ST0)\n"),
             *(swap(FPU, f"{conversion}(ST0, &env->fp_status);", f"{conversion}(STORED_ST0, &env->fp_status);", times)
               for conversion, times in (("u.f = floatx80_to_float32", 1), ("u.f = floatx80_to_float64", 1),
                                         ("val = floatx80_to_int32", 2), ("val = floatx80_to_int64", 2),
                                         ("val = floatx80_to_int32_round_to_zero", 2),
                                         ("val = floatx80_to_int64_round_to_zero", 1))),
             swap(FPU, "    do_fstt(&ac, ptr, ST0);", "    do_fstt(&ac, ptr, STORED_ST0);"),
             swap(FPU, "    env->fpus &= ~0x4700;\n}", "    env->fpus &= ~0x200; /* C0, C2 and C3 are undefined, and kept by CPUs */\n}", 2),
             swap(FPU, "    ST(st_index) = ST0;\n}\n\nvoid helper_fxchg",
                  "    ST(st_index) = STORED_ST0;\n    env->fptags[(env->fpstt + st_index) & 7] = 0;\n}\n\nvoid helper_fxchg"),
         )),

    Edit("x87-wait", "All x87 instructions but the FN forms of control, and all of MMX, raise #MF first if an unmasked "
         "exception is pending (SDM vol. 1, 8.6; vol. 3, 13.4).", "x87-wait", (
             before(TRANSLATE, "    if (mod != 3) {\n        /* memory op */\n", """    if (!(mod != 3 ? op == 0x0e || op == 0x0f || op == 0x2e || op == 0x2f : op == 0x1c || op == 0x3c)) {
        gen_helper_fwait(tcg_env);
    }
"""),
             swap(DECODE, "        gen_helper_enter_mmx(tcg_env);\n    }\n\n    if (decode.e.special != X86_SPECIAL_NoLoadEA",
                  "        gen_helper_fwait(tcg_env);\n    }\n\n    if (decode.e.special != X86_SPECIAL_NoLoadEA"),
             # The tags change last: not if memory faults.
             swap(DECODE, "        decode.e.gen(s, &decode);\n        gen_writeback(s, &decode, 0, s->T0);\n", """        decode.e.gen(s, &decode);
        gen_writeback(s, &decode, 0, s->T0);
        if (decode.e.special == X86_SPECIAL_MMX &&
            !(s->prefix & (PREFIX_REPZ | PREFIX_REPNZ | PREFIX_DATA))) {
            gen_helper_enter_mmx(tcg_env);
        }
"""),
             swap(FPU, "void helper_emms(CPUX86State *env)\n{\n", """void helper_emms(CPUX86State *env)
{
    if (env->fpus & FPUS_SE) {
        fpu_raise_exception(env, GETPC());
    }
    env->fpstt = 0; /* as by all of MMX: SDM vol. 3, 13.2 */
"""),
         )),

    Edit("mmx-exponent", "A write of an MMX register sets bits 79:64 of the x87 register to ones (SDM vol. 3, 13.2).",
         "mmx-exponent", (
             swap(DECODE, "        decode.e.gen(s, &decode);\n        gen_writeback(s, &decode, 0, s->T0);\n", """        bool to_mmx = decode.op[0].unit == X86_OP_MMX && !decode.op[0].has_ea;

        decode.e.gen(s, &decode);
        gen_writeback(s, &decode, 0, s->T0);
        if (to_mmx) {
            tcg_gen_st16_i32(tcg_constant_i32(0xffff), tcg_env,
                             offsetof(CPUX86State, fpregs[0].d.high) + sizeof(FPReg) * (decode.op[0].n & 7));
        }
"""),
         )),

    Edit("fcw", "FCW's bit 6 reads as 1, bits 7 and 15:13 as 0. FSW's ES and B say whether an unmasked exception is pending, "
         "whatever was loaded for them, and follow a load of FCW (SDM vol. 1, 8.1.3.3 and 8.1.5; that FXRSTOR and XRSTOR "
         "compute them was measured on CPUs of both vendors).", "fcw", (
             swap("target/i386/cpu.h", "     env->fpuc = fpuc;\n", "     env->fpuc = (fpuc & 0x1f7f) | 0x40;\n"),
             swap(FPU, "    env->fpus = fpus & ~0x3800 & ~FPUS_B;\n    env->fpus |= env->fpus & FPUS_SE ? FPUS_B : 0;\n", """    env->fpus = fpus & ~0x3800 & ~FPUS_B & ~FPUS_SE;
    fpu_set_exception(env, 0);
"""),
             swap(FPU, "    cpu_set_fpuc(env, val);\n}", """    cpu_set_fpuc(env, val);
    env->fpus &= ~(FPUS_B | FPUS_SE);
    fpu_set_exception(env, 0);
}"""),
         )),

    Edit("mxcsr", "LDMXCSR, FXRSTOR and XRSTOR raise #GP for reserved bits of MXCSR and then load nothing. XSAVE and XRSTOR "
         "treat MXCSR if SSE or AVX is in RFBM (SDM vol. 1, 10.2.3, 13.7 and 13.8.1).", "mxcsr", (
             swap(FPU, "    cpu_set_mxcsr(env, val);\n}", """    if (val & 0xffff0000) {
        raise_exception_ra(env, EXCP0D_GPF, GETPC());
    }
    cpu_set_mxcsr(env, val);
}"""),
             before(FPU, "    do_fxrstor(&ac, ptr);\n}\n\nstatic bool valid_xrstor_header", """    if ((env->cr[4] & CR4_OSFXSR_MASK)
        && access_ldl(&ac, ptr + offsetof(X86XSaveArea, legacy.mxcsr)) & 0xffff0000) {
        raise_exception_ra(env, EXCP0D_GPF, ra);
    }
"""),
             before(FPU, "    do_xrstor(&ac, ptr, rfbm, xstate_bv);\n}\n\n#if defined", """    if ((rfbm & (XSTATE_SSE_MASK | XSTATE_YMM_MASK))
        && access_ldl(&ac, ptr + offsetof(X86XSaveArea, legacy.mxcsr)) & 0xffff0000) {
        raise_exception_ra(env, EXCP0D_GPF, ra);
    }
"""),
             swap(FPU, """    if (rfbm & XSTATE_SSE_MASK) {
        /* Note that the standard form""", """    if (rfbm & (XSTATE_SSE_MASK | XSTATE_YMM_MASK)) {
        /* Note that the standard form"""),
             swap(FPU, "        do_xrstor_mxcsr(ac, ptr);\n        if (xstate_bv & XSTATE_SSE_MASK) {",
                  "        do_xrstor_mxcsr(ac, ptr);\n    }\n    if (rfbm & XSTATE_SSE_MASK) {\n"
                  "        if (xstate_bv & XSTATE_SSE_MASK) {"),
             swap(FPU, "    if (rfbm & XSTATE_SSE_MASK) {\n        /* Note that saving MXCSR",
                  "    if (rfbm & (XSTATE_SSE_MASK | XSTATE_YMM_MASK)) {\n        /* Note that saving MXCSR"),
         )),

    Edit("pointers", "XSAVE and FXSAVE write FOP and the padding of the registers. FIP, FDP, FOP and the selectors are saved "
         "and loaded, in the form that REX.W selects (SDM vol. 1, 10.5.1 and 13.5.1); as by AMD's CPUs only while an "
         "unmasked exception is pending, else they read as 0 (APM vol. 2, 11.4.4: what CPUID's XSaveErPtr says).",
         "pointers", (
             swap("target/i386/tcg/access.h", "    uintptr_t ra;\n} X86Access;", """    uintptr_t ra;
    bool wide; /* of XSAVE, FXSAVE and their reverses: REX.W */
} X86Access;"""),
             swap(HELPERS, "DEF_HELPER_FLAGS_2(fxsave, TCG_CALL_NO_WG, void, env, tl)",
                  "DEF_HELPER_FLAGS_3(fxsave, TCG_CALL_NO_WG, void, env, tl, i32)"),
             swap(HELPERS, "DEF_HELPER_FLAGS_2(fxrstor, TCG_CALL_NO_WG, void, env, tl)",
                  "DEF_HELPER_FLAGS_3(fxrstor, TCG_CALL_NO_WG, void, env, tl, i32)"),
             *(swap(HELPERS, f"DEF_HELPER_FLAGS_3({name}, TCG_CALL_NO_WG, void, env, tl, i64)",
                    f"DEF_HELPER_FLAGS_4({name}, TCG_CALL_NO_WG, void, env, tl, i64, i32)")
               for name in ("xsave", "xsaveopt", "xrstor")),
             swap(EMIT, "gen_helper_fxsave(tcg_env, s->A0)", "gen_helper_fxsave(tcg_env, s->A0, tcg_constant_i32(REX_W(s)))"),
             swap(EMIT, "gen_helper_fxrstor(tcg_env, s->A0)", "gen_helper_fxrstor(tcg_env, s->A0, tcg_constant_i32(REX_W(s)))"),
             swap(EMIT, "gen_helper_xsave(tcg_env, s->A0, features)",
                  "gen_helper_xsave(tcg_env, s->A0, features, tcg_constant_i32(REX_W(s)))", 2),
             swap(EMIT, "gen_helper_xrstor(tcg_env, s->A0, features)",
                  "gen_helper_xrstor(tcg_env, s->A0, features, tcg_constant_i32(REX_W(s)))"),
             swap(FPU, "void helper_fxsave(CPUX86State *env, target_ulong ptr)",
                  "void helper_fxsave(CPUX86State *env, target_ulong ptr, uint32_t wide)"),
             swap(FPU, "void helper_fxrstor(CPUX86State *env, target_ulong ptr)",
                  "void helper_fxrstor(CPUX86State *env, target_ulong ptr, uint32_t wide)"),
             *(swap(FPU, f"void helper_{name}(CPUX86State *env, target_ulong ptr, uint64_t rfbm)",
                    f"void helper_{name}(CPUX86State *env, target_ulong ptr, uint64_t rfbm, uint32_t wide)")
               for name in ("xsave", "xsaveopt", "xrstor")),
             swap(FPU, "    do_fxsave(&ac, ptr);\n}", "    ac.wide = wide;\n    do_fxsave(&ac, ptr);\n}"),
             swap(FPU, "    do_fxrstor(&ac, ptr);\n}", "    ac.wide = wide;\n    do_fxrstor(&ac, ptr);\n}"),
             swap(FPU, "    do_xrstor(&ac, ptr, rfbm, xstate_bv);\n}", "    ac.wide = wide;\n    do_xrstor(&ac, ptr, rfbm, xstate_bv);\n}"),
             swap(FPU, "                     uint64_t inuse, uint64_t opt, uintptr_t ra)\n",
                  "                     uint64_t inuse, uint64_t opt, bool wide, uintptr_t ra)\n"),
             swap(FPU, "    do_xsave_access(&ac, ptr, rfbm, inuse, opt);\n}",
                  "    ac.wide = wide;\n    do_xsave_access(&ac, ptr, rfbm, inuse, opt);\n}"),
             swap(FPU, "get_xinuse(env), rfbm, GETPC());", "get_xinuse(env), rfbm, wide, GETPC());"),
             swap(FPU, "inuse, inuse, GETPC());", "inuse, inuse, wide, GETPC());"),
             Change(FPU, "    /* In 32-bit mode this is eip, sel, dp, sel.\n", """    pending = env->fpus & FPUS_SE;
    access_stw(ac, ptr + XO(legacy.fpop), pending ? env->fpop & 0x7ff : 0);
    ip = pending ? env->fpip : 0;
    dp = pending ? env->fpdp : 0;
    if (!ac->wide) {
        ip = (uint32_t)ip | (uint64_t)(pending ? env->fpcs : 0) << 32;
        dp = (uint32_t)dp | (uint64_t)(pending ? env->fpds : 0) << 32;
    }
    access_stq(ac, ptr + XO(legacy.fpip), ip);
    access_stq(ac, ptr + XO(legacy.fpdp), dp);

""", 1, "    addr = ptr + XO(legacy.fpregs);\n"),
             swap(FPU, "    int fpus, fptag, i;\n    target_ulong addr;\n", """    int fpus, fptag, i;
    target_ulong addr;
    uint64_t ip, dp;
    bool pending;
"""),
             swap(FPU, "        do_fstt(ac, addr, tmp);\n        addr += 16;\n", """        do_fstt(ac, addr, tmp);
        access_stw(ac, addr + 10, 0);
        access_stl(ac, addr + 12, 0);
        addr += 16;
"""),
             swap(FPU, "    fptag ^= 0xff;\n", """    env->fpop = access_ldw(ac, ptr + XO(legacy.fpop));
    env->fpip = access_ldq(ac, ptr + XO(legacy.fpip));
    env->fpdp = access_ldq(ac, ptr + XO(legacy.fpdp));
    env->fpcs = env->fpds = 0;
    if (!ac->wide) {
        env->fpcs = env->fpip >> 32;
        env->fpds = env->fpdp >> 32;
        env->fpip = (uint32_t)env->fpip;
        env->fpdp = (uint32_t)env->fpdp;
    }

    fptag ^= 0xff;
"""),
             swap(FPU, "    env->fpip = 0;\n    env->fpdp = 0;\n", "    env->fpip = 0;\n    env->fpdp = 0;\n    env->fpop = 0;\n"),
         )),

    Edit("emms-nm", "EMMS raises #UD if CR0.EM and #NM if CR0.TS, as all of MMX (SDM vol. 2, EMMS).", "cr0-ts", (
        swap(EMIT, "    gen_helper_emms(tcg_env);\n", """    if (s->flags & HF_EM_MASK) {
        gen_illegal_opcode(s);
    } else if (s->flags & HF_TS_MASK) {
        gen_NM_exception(s);
    } else {
        gen_helper_emms(tcg_env);
    }
"""),
    )),

    Edit("xsave-nm", "XSAVE and its kind raise #NM if CR0.TS (SDM vol. 2, XSAVE and XRSTOR); #UD comes first, #GP after it.",
         "cr0-ts", (
             before(FPU, "    /* The operand must be 64 byte aligned.  */\n", """    if (env->cr[0] & CR0_TS_MASK) {
        raise_exception_ra(env, EXCP07_PREX, ra);
    }

"""),
         )),

    Edit("xsetbv", "XSETBV's #UD without CR4.OSXSAVE comes before its interception, which KVM takes for granted (APM vol. 2, "
         "15.9).", "xsetbv", (
             swap("target/i386/tcg/system/svm_helper.c", "void helper_svm_check_intercept(CPUX86State *env, uint32_t type)\n{\n",
                  """void helper_svm_check_intercept(CPUX86State *env, uint32_t type)
{
    if (type == SVM_EXIT_XSETBV && !(env->cr[4] & CR4_OSXSAVE_MASK)) {
        raise_exception_ra(env, EXCP06_ILLOP, GETPC());
    }
"""),
         )),

    Edit("xsaveopt", "XSAVEOPT is XSAVEOPT: it writes nothing of BNDREGS in their initial configuration, whose XINUSE QEMU "
         "tracks (SDM vol. 1, 13.9).", "xsaveopt", (
             swap(EMIT, """static void gen_XSAVEOPT(DisasContext *s, X86DecodedInsn *decode)
{
    TCGv_i64 features = tcg_temp_new_i64();

    tcg_gen_concat_tl_i64(features, cpu_regs[R_EAX], cpu_regs[R_EDX]);
    gen_helper_xsave(""", """static void gen_XSAVEOPT(DisasContext *s, X86DecodedInsn *decode)
{
    TCGv_i64 features = tcg_temp_new_i64();

    tcg_gen_concat_tl_i64(features, cpu_regs[R_EAX], cpu_regs[R_EDX]);
    gen_helper_xsaveopt("""),
         )),

    Edit("bndcsr", "XRSTOR drops the reserved bits of BNDCFGU and makes its base canonical; XSAVE writes all 64 bytes of the "
         "component (SDM vol. 1, 13.5.4).", "bndcsr", (
             swap(FPU, """        = access_ldq(ac, ptr + offsetof(XSaveBNDCSR, bndcsr.cfgu));
""", """        = sextract64(access_ldq(ac, ptr + offsetof(XSaveBNDCSR, bndcsr.cfgu)), 0, 48) & ~0xffcULL;
"""),
             swap(FPU, """               env->bndcs_regs.sts);
}""", """               env->bndcs_regs.sts);
    for (int i = 16; i < 64; i += 8) {
        access_stq(ac, ptr + i, 0);
    }
}"""),
         )),
]
