# SPDX-License-Identifier: GPL-2.0-or-later
"""What is changed in Bochs 3.0 before it is built: XFD, which it lacks, flaws that looked like a kernel's bug or hid
one, and the door to the outside.

`check` names the part of selftest.c that fails without the edit; KVM where it takes a guest: no VM could be entered,
and kvm-runner could not answer a hello.
"""

from ..apply import LAB, Edit, after, before, cut, swap

KVM = "KVM"
XSAVE = "cpu/xsave.cc"
AMX = "cpu/avx/amx.cc"
AMX_H = "cpu/avx/amx.h"


def signed_products():
    """Of each pair, TDPBSSD multiplies signed by signed bytes, TDPBSUD signed by unsigned, TDPBUSD the reverse."""
    kinds = {("s", "s"): ("Bit8s", "Bit8s"), ("s", "u"): ("Bit8s", "Bit8u"), ("u", "s"): ("Bit8u", "Bit8s")}
    for (x, y), (left, right) in kinds.items():
        for n in range(4):
            yield swap(AMX, f"Bit32{x}(xbyte[{n}]) * Bit32{y}(ybyte[{n}])",
                       f"Bit32s({left}(xbyte[{n}])) * Bit32s({right}(ybyte[{n}]))")


EDITS = [
    Edit("xfd", "IA32_XFD and IA32_XFD_ERR, their CPUID bits, and the #NM of tile instructions (SDM vol. 1, 13.14). "
         "Bochs has none of it.", "xfd", (
             after("cpu/cpu.h", "  Bit64u ia32_xss;", """
  Bit64u ia32_xfd, ia32_xfd_err;
// What IA32_XFD disables now: it acts only where XCR0 has the bit.
#define BX_XFD_DISABLED Bit32u(BX_CPU_THIS_PTR msr.ia32_xfd & BX_CPU_THIS_PTR xcr0.get32())
#define BX_XFD_NM(components) { \\
    Bit32u xfd_needed = (components) & BX_XFD_DISABLED; \\
    if (xfd_needed) { \\
      BX_CPU_THIS_PTR msr.ia32_xfd_err = xfd_needed; \\
      exception(BX_NM_EXCEPTION, 0); \\
    } \\
  }
"""),
             after("cpu/init.cc", "  BX_CPU_THIS_PTR msr.ia32_xss = 0;", """
  BX_CPU_THIS_PTR msr.ia32_xfd = BX_CPU_THIS_PTR msr.ia32_xfd_err = 0;
"""),
             after("cpu/init.cc", "    BXRS_HEX_PARAM_FIELD(MSR, ia32_xss, msr.ia32_xss);", """
    BXRS_HEX_PARAM_FIELD(MSR, ia32_xfd, msr.ia32_xfd);
    BXRS_HEX_PARAM_FIELD(MSR, ia32_xfd_err, msr.ia32_xfd_err);
"""),
             after("cpu/msr.cc", '  msr_desc[BX_MSR_XSS] = new MSR_Descriptor("MSR_IA32_XSS", BX_ISA_XSAVES);', """
  msr_desc[BX_MSR_IA32_XFD] = new MSR_Descriptor("MSR_IA32_XFD", BX_ISA_AMX);
  msr_desc[BX_MSR_IA32_XFD_ERROR] = new MSR_Descriptor("MSR_IA32_XFD_ERR", BX_ISA_AMX);
"""),
             after("cpu/msr.cc", "      val64 = BX_CPU_THIS_PTR msr.ia32_xss;", """
      break;
    case BX_MSR_IA32_XFD:
      val64 = BX_CPU_THIS_PTR msr.ia32_xfd;
      break;
    case BX_MSR_IA32_XFD_ERROR:
      val64 = BX_CPU_THIS_PTR msr.ia32_xfd_err;
"""),
             before("cpu/msr.cc", "    case BX_MSR_XSS:\n      {", """
    case BX_MSR_IA32_XFD:
    case BX_MSR_IA32_XFD_ERROR:
      // Only the components that CPUID says XFD for: the tiles.
      if (val_64 & ~Bit64u(BX_XCR0_XTILEDATA_MASK)) return false;
      (index == BX_MSR_IA32_XFD ? BX_CPU_THIS_PTR msr.ia32_xfd : BX_CPU_THIS_PTR msr.ia32_xfd_err) = val_64;
      break;
"""),
             after("cpu/cpuid.cc", "      leaf->eax |= (1<<3);", """
    if (is_cpu_extension_supported(BX_ISA_AMX))
      leaf->eax |= (1<<4);
"""),
             after("cpu/cpuid.cc", "      leaf->ecx = (cpu->ia32_xss_suppmask & (1 << subfunction)) != 0;", """
      if (subfunction == xcr0_t::BX_XCR0_XTILEDATA_BIT) leaf->ecx |= (1<<2);
"""),
             # Behind all that is #UD.
             before(AMX, "  if (n > 16 || k > 16) {", "  BX_XFD_NM(BX_XCR0_XTILEDATA_MASK);\n"),
             before(AMX, "  Bit32u mask = (dword_elements_per_row < 16)", "  BX_XFD_NM(BX_XCR0_XTILEDATA_MASK);\n", 2),
             before(AMX, "  BX_CPU_THIS_PTR amx->clear_tile_used(tile);", "  BX_XFD_NM(BX_XCR0_XTILEDATA_MASK);\n"),
         )),
    Edit("xfd-xsave", "XSAVE* take XINUSE as 0 for what IA32_XFD disables, and XSAVE stores zeros there (13.14). XGETBV is "
         "not told.", "xfd_xsave", (
             swap(XSAVE, "  Bit32u xinuse = get_xinuse_vector(requested_feature_bitmap);",
                  "  Bit32u xinuse = get_xinuse_vector(requested_feature_bitmap) & ~BX_XFD_DISABLED;", 2),
             swap(XSAVE,
                  "        CALL_XSAVE_FN(xsave_restore[feature].xsave_method)(i, eaddr+xsave_restore[feature].offset);", """
        if (BX_XFD_DISABLED & feature_mask) {
          for (unsigned n=0; n < xsave_restore[feature].len; n += 8)
            write_virtual_qword(i->seg(), (eaddr+xsave_restore[feature].offset+n) & asize_mask, 0);
        }
        else
          CALL_XSAVE_FN(xsave_restore[feature].xsave_method)(i, eaddr+xsave_restore[feature].offset);
"""),
         )),
    Edit("aligned-components", "In the compacted format XTILECFG and XTILEDATA begin at a multiple of 64 bytes "
         "(CPUID.(0DH,i):ECX[1], SDM vol. 1, 13.4.3). Bochs packs them.", "layout", (
             after("cpu/crregs.h", "const unsigned XSAVE_HEADER_LEN             = 64;", """
// Where a component begins in the compacted format, if all before it ends at `offset`. Bits 17 and 18 are the tiles'.
BX_CPP_INLINE Bit32u xsave_compacted_offset(unsigned feature, Bit32u offset)
{
  return (feature == 17 || feature == 18) ? (offset + 63) & ~Bit32u(63) : offset;
}
"""),
             swap("cpu/cpuid.cc", "      max_size += xsave_restore[n].len;",
                  "      max_size = xsave_compacted_offset(n, max_size) + xsave_restore[n].len;"),
             after("cpu/cpuid.cc", "      leaf->ebx = xsave_restore[subfunction].offset;", """
      aligned = xsave_compacted_offset(subfunction, 1) == 64;
"""),
             before("cpu/cpuid.cc", "    if (support_mask & (1 << subfunction)) {", "    bool aligned = false;\n"),
             after("cpu/cpuid.cc", "      leaf->ecx = (cpu->ia32_xss_suppmask & (1 << subfunction)) != 0;", """
      if (aligned) leaf->ecx |= (1<<1);
"""),
             before(XSAVE, "      if (xinuse & feature_mask) {", "      offset = xsave_compacted_offset(feature, offset);\n"),
         )),
    Edit("xrstor", "XRSTOR and XRSTORS from where the header is known to be good. Bochs moves on in a compacted image "
         "only for components in RFBM, where each in XCOMP_BV counts; leaves MXCSR alone where a compacted image has no "
         "SSE, where it becomes 1F80H; loads before it has checked MXCSR; and knows no XFD (13.8, 13.12, 13.14).", "xrstor", (
             cut(XSAVE, "  Bit64u format = (compaction) ?", "  // take effect of changing the PKRU state", """
  Bit32u load = requested_feature_bitmap & (Bit32u) xstate_bv;
  BX_XFD_NM(load);

  // The standard format has MXCSR wherever SSE or AVX is asked for, the compacted one only in a saved SSE state.
  const Bit32u sse_avx = BX_XCR0_SSE_MASK | BX_XCR0_YMM_MASK;
  bool load_mxcsr = compaction ? (load & BX_XCR0_SSE_MASK) != 0 : (requested_feature_bitmap & sse_avx) != 0;
  Bit32u mxcsr = MXCSR_RESET;
  if (load_mxcsr) {
    mxcsr = read_virtual_dword(i->seg(), (eaddr + 24) & asize_mask);
    if (mxcsr & ~MXCSR_MASK) exception(BX_GP_EXCEPTION, 0);
  }

  bx_address place[xcr0_t::BX_XCR0_LAST];
  Bit32u end = XSAVE_YMM_STATE_OFFSET;
  for (unsigned feature = 0; feature < xcr0_t::BX_XCR0_LAST; feature++) {
    place[feature] = eaddr + xsave_restore[feature].offset;
    if (compaction && feature >= xcr0_t::BX_XCR0_YMM_BIT && (xcomp_bv >> feature) & 1) {
      end = xsave_compacted_offset(feature, end);
      place[feature] = eaddr + end;
      end += xsave_restore[feature].len;
    }
  }

  // Three rounds: what can fault on the values it loads, and so goes before any change; then the components that
  // become initial; then all other loads.
  Bit32u checked = load & (Bit32u) BX_CPU_THIS_PTR msr.ia32_xss;
  for (unsigned round = 0; round < 3; round++) {
    Bit32u now = round == 0 ? checked : round == 1 ? requested_feature_bitmap & ~load : load & ~checked;
    for (unsigned feature = 0; feature < xcr0_t::BX_XCR0_LAST; feature++) {
      if (! (now & (1 << feature)) || ! xsave_restore[feature].len) continue;
      if (round == 1)
        CALL_XSAVE_FN(xsave_restore[feature].xrstor_init_method)();
      else
        CALL_XSAVE_FN(xsave_restore[feature].xrstor_method)(i, place[feature] & asize_mask);
    }
  }
  if (load_mxcsr || (requested_feature_bitmap & BX_XCR0_SSE_MASK) != 0) BX_MXCSR_REGISTER = mxcsr;

#if BX_SUPPORT_PKEYS
"""),
         )),
    Edit("xsave-probes", "A save that faults has stored nothing, and its fault is a write's. Bochs reads the header first, and "
         "stores what it can.", "xsave_probe", (
             before(XSAVE, "/* 0F AE /4 */", """
static Bit32u xsave_area_end(Bit32u components, bool compacted)
{
  Bit32u end = 512 + 64;
  for (unsigned feature = xcr0_t::BX_XCR0_YMM_BIT; feature < xcr0_t::BX_XCR0_LAST; feature++) {
    if (! (components & (1 << feature))) continue;
    end = compacted ? xsave_compacted_offset(feature, end) : xsave_restore[feature].offset;
    end += xsave_restore[feature].len;
  }
  return end;
}

// Each page of the area, from the first byte to the last.
#define XSAVE_PROBE(components, compacted) { \\
    Bit32u last = xsave_area_end(components, compacted) - 1; \\
    for (Bit32u at = 0;; at = (last - at > 4096) ? at + 4096 : last) { \\
      read_RMW_virtual_byte(i->seg(), (eaddr + at) & asize_mask); \\
      if (at == last) break; \\
    } \\
  }

"""),
             before(XSAVE, "  Bit64u xstate_bv = read_virtual_qword(i->seg(), (eaddr + 512) & asize_mask);\n\n"
                    "  Bit32u requested_feature_bitmap", "  XSAVE_PROBE(BX_CPU_THIS_PTR xcr0.get32() & EAX, false);\n"),
             after(XSAVE, "  Bit64u xcomp_bv = requested_feature_bitmap | XSAVEC_COMPACTION_ENABLED;", """
  XSAVE_PROBE(requested_feature_bitmap, true);
"""),
         )),
    Edit("mxcsr-compacted", "XSAVEC and XSAVES store MXCSR with SSE alone; AVX in use does not save it (13.10).", "mxcsr_xsavec", (
        swap(XSAVE, "  if ((xstate_bv & (BX_XCR0_SSE_MASK|BX_XCR0_YMM_MASK)) != 0)",
             "  if ((xstate_bv & BX_XCR0_SSE_MASK) != 0)"),
    )),
    Edit("avx-init", "The initial AVX state is zeros in bits 255:128; Bochs zeroes 511:256 too, which are ZMM_Hi256's.",
         "avx_init", (
             cut(XSAVE, "  // initialize upper part of AVX registers with reset values", "bool BX_CPU_C::xsave_ymm_state_xinuse", """
  for (unsigned index=0; index < num_regs; index++)
    BX_READ_AVX_REG_LANE(index, 1).clear();
}

"""),
         )),
    Edit("hi16-zmm-in-use", "Outside 64-bit mode Hi16_ZMM is in its initial configuration (13.6); Bochs says in use.",
         "hi16_32bit", (
             swap(XSAVE, "  if (!long64_mode()) return true;", "  if (!long64_mode()) return false;"),
         )),
    Edit("pkru-four-bytes", "A store of PKRU leaves bytes 7:4 of its eight alone: so Sapphire Rapids does.", "pkru_store", (
        swap(XSAVE, "  write_virtual_qword(i->seg(), offset, (Bit64u) BX_CPU_THIS_PTR pkru);",
             "  write_virtual_dword(i->seg(), offset, BX_CPU_THIS_PTR pkru);"),
    )),
    Edit("xrstors-checks", "XRSTORS of a supervisor component raises #GP for what WRMSR would (13.12). Bochs drops the "
         "answer of its own check.", "xrstors_cet", tuple(
             swap(XSAVE, f"  wrmsr({msr}, {value});", f"  if (! wrmsr({msr}, {value})) exception(BX_GP_EXCEPTION, 0);")
             for msr, value in (("BX_MSR_IA32_U_CET", "ctrl"), ("BX_MSR_IA32_PL3_SSP", "ia32_pl3_ssp"),
                                ("BX_MSR_IA32_PL0_SSP", "ia32_pl0_ssp"), ("BX_MSR_IA32_PL1_SSP", "ia32_pl1_ssp"),
                                ("BX_MSR_IA32_PL2_SSP", "ia32_pl2_ssp")))),
    Edit("tiledata-rows", "TILEDATA is 16 rows a tile; Bochs saves and restores 8.", "tile_rows", (
        swap(XSAVE, "row < BX_TILE_REGISTERS", "row < BX_TILE_MAX_ROWS", 2),
    )),
    Edit("tiledata-in-use", "TILEDATA is in use when a tile is, not when none is; nothing is in use at the start.",
         "tile_in_use", (
             swap(XSAVE, "  return (BX_CPU_THIS_PTR amx->tile_use_tracker == 0);",
                  "  return (BX_CPU_THIS_PTR amx->tile_use_tracker != 0);"),
             swap(AMX_H, "  AMX(): palette_id(0), start_row(0) {}", "  AMX(): palette_id(0), start_row(0), tile_use_tracker(0) {}"),
         )),
    Edit("tilecfg-format", "In a TILECFG image the words at 16 are bytes per row, the bytes at 48 rows; Bochs stores them "
         "the other way round.", "tilecfg_image", (
             swap(XSAVE, "tilecfg.vmm16u(8+n)    = BX_CPU_THIS_PTR amx->tilecfg[n].rows;",
                  "tilecfg.vmm16u(8+n) = BX_CPU_THIS_PTR amx->tilecfg[n].bytes_per_row;"),
             swap(XSAVE, "tilecfg.vmmubyte(48+n) = BX_CPU_THIS_PTR amx->tilecfg[n].bytes_per_row;",
                  "tilecfg.vmmubyte(48+n) = BX_CPU_THIS_PTR amx->tilecfg[n].rows;"),
         )),
    Edit("tilecfg-alone", "XRSTOR* of TILECFG, legal or not, and its initialisation leave TILEDATA alone (13.5.14); only "
         "LDTILECFG and TILERELEASE zero the tiles.", "tilecfg_keeps_data", (
             before(AMX_H, "  void clear() {\n    palette_id = 0;", """
  void clear_config() {
    palette_id = 0;
    start_row = 0;
    clear_tilecfg();
  }

"""),
             swap(XSAVE, "BX_CPU_THIS_PTR amx->clear();", "BX_CPU_THIS_PTR amx->clear_config();", 2),
             swap(AMX, "    BX_CPU_THIS_PTR amx->clear();", "    BX_CPU_THIS_PTR amx->clear_config();", 2),
             cut(AMX, "  if (!configure_tiles(i, tilecfg))", "void BX_CPP_AttrRegparmN(1) BX_CPU_C::STTILECFG", """
  if (!configure_tiles(i, tilecfg)) exception(BX_GP_EXCEPTION, 0);
  BX_CPU_THIS_PTR amx->clear_tiles();
  BX_CPU_THIS_PTR amx->tile_use_tracker = 0;
  BX_NEXT_INSTR(i);
}

"""),
         )),
    Edit("amx-reset", "A reset leaves no tiles.", LAB, (
        after("cpu/init.cc", "    BX_CPU_THIS_PTR xcr0.set32(0x1);", """
#if BX_SUPPORT_AMX
    if (BX_CPU_THIS_PTR amx) BX_CPU_THIS_PTR amx->clear();
#endif
"""),
    )),
    Edit("sttilecfg-encoding", "STTILECFG is VEX.128.66.0F38.W0 49 /0; Bochs wants W1.", "sttilecfg", (
        swap("cpu/decoder/fetchdecode_opmap_avx.cc",
             "ATTR_SSE_PREFIX_66 | ATTR_VEX_W1 | ATTR_VL128 | ATTR_MOD_MEM | ATTR_IS64, BX_IA_STTILECFG",
             "ATTR_SSE_PREFIX_66 | ATTR_VEX_W0 | ATTR_VL128 | ATTR_MOD_MEM | ATTR_IS64, BX_IA_STTILECFG"),
    )),
    Edit("tdp-signs", "The int8 products of TDPBSSD, TDPBSUD and TDPBUSD have signs.", "tdp_signs", tuple(signed_products())),
    Edit("pkru-user-pages", "PKRU governs user pages only (U/S set at every level), whatever the CPL; the others follow "
         "IA32_PKRS (SDM vol. 3, 4.6.2). Bochs applies it to all pages, and a host dies as soon as a guest's PKRU denies "
         "key 0. A supervisor page's key is kept with 16 added, so that the two tables do not mix.", "pkru_pages", (
             swap("cpu/cpu.h", "  Bit32u rd_pkey[16];", "  Bit32u rd_pkey[32];"),
             swap("cpu/cpu.h", "  Bit32u wr_pkey[16];", "  Bit32u wr_pkey[32];"),
             swap("cpu/paging.cc", "  pkey = handle_pkeys(laddr, entry[leaf], user, rw);", """
  // Bit 2 of what it gets: whether this is a user page.
  pkey = handle_pkeys(laddr, entry[leaf] & ~Bit64u(~combined_access & 4), user, rw);
"""),
             cut("cpu/paging.cc", "  Bit32u pkey = 0;\n\n  if (rw != BX_EXECUTE) {",
                 "// Translate a linear address to a physical address in long mode", """
  if (rw == BX_EXECUTE) return 0;
  const bool user_page = (leaf_entry & 4) != 0;
  if (! (user_page ? BX_CPU_THIS_PTR cr4.get_PKE() : BX_CPU_THIS_PTR cr4.get_PKS())) return user_page ? 0 : 16;
  const Bit32u key = (leaf_entry >> 59) & 0xf;
  const Bit32u rights = (user_page ? BX_CPU_THIS_PTR pkru : BX_CPU_THIS_PTR pkrs) >> (key * 2);
  const bool no_access = rights & 1, no_write = (rights & 2) && (user || BX_CPU_THIS_PTR cr0.get_WP());
  if (no_access || ((rw & 1) && no_write))
    page_fault(ERROR_PROTECTION | ERROR_PKEY, laddr, user, rw);
  return user_page ? key : key + 16;
}
#endif

"""),
             cut("cpu/proc_ctrl.cc", "  for (unsigned i=0; i<16; i++) {\n    BX_CPU_THIS_PTR rd_pkey[i]",
                 "void BX_CPP_AttrRegparmN(1) BX_CPU_C::RDPKRU", """
  for (unsigned i=0; i<32; i++) {
    const bool user_page = i < 16;
    const bool on = long_mode() && (user_page ? BX_CPU_THIS_PTR cr4.get_PKE() : BX_CPU_THIS_PTR cr4.get_PKS());
    const Bit32u rights = on ? (user_page ? pkru_val : pkrs_val) >> ((i & 15) * 2) : 0;
    const Bit32u all = TLB_SysReadOK | TLB_UserReadOK | TLB_SysWriteOK | TLB_UserWriteOK;
    Bit32u write = all;
    if (rights & 2) write &= ~TLB_UserWriteOK;
    if ((rights & 2) && BX_CPU_THIS_PTR cr0.get_WP()) write &= ~TLB_SysWriteOK;
    if (rights & 1) write = 0;
    BX_CPU_THIS_PTR rd_pkey[i] = (rights & 1) ? 0 : all;
    BX_CPU_THIS_PTR wr_pkey[i] = write;
#if BX_SUPPORT_CET
    // Four bits up are the rights for shadow stacks.
    BX_CPU_THIS_PTR rd_pkey[i] |= BX_CPU_THIS_PTR rd_pkey[i]<<4;
    BX_CPU_THIS_PTR wr_pkey[i] |= BX_CPU_THIS_PTR wr_pkey[i]<<4;
#endif
  }
}

"""),
         )),
    Edit("msr-canonical", "Whether an address in an MSR is canonical is a question of the CPU's greatest width (57 bits with LA57), "
         "not of CR4.LA57. Bochs asks CR4.LA57, so a guest's WRMSR faults where a CPU's does not.", "msr_canonical", (
             *(after(file, "#define LOG_THIS BX_CPU_THIS_PTR", """
#define IS_CANONICAL_MSR(value) IsCanonicalToWidth(value, BX_CPUID_SUPPORT_ISA_EXTENSION(BX_ISA_LA57) ? 57 : 48)
""") for file in ("cpu/msr.cc", "cpu/vmx.cc")),
             swap("cpu/msr.cc", "! IsCanonical(val_64)", "! IS_CANONICAL_MSR(val_64)", 14),
             *(swap("cpu/vmx.cc", f"IsCanonical({field})", f"IS_CANONICAL_MSR({field})")
               for state in ("host_state->", "guest.")
               for field in (f"{state}sysenter_esp_msr", f"{state}sysenter_eip_msr", f"{state}msr_ia32_s_cet",
                             f"{state}interrupt_ssp_table_address")),
         )),
    Edit("vm-entry-la57", "VM entry and VM exit load CR4.LA57 whatever it was (vol. 3, 27.3.2.1 and 28.5.1); only MOV to CR4 must "
         "not change it in IA-32e mode. Bochs takes it for that, ends, and keeps the width of linear addresses. The "
         "selftests of 7.x give guests CR4.LA57 where KVM offers it.", KVM, (
             after("cpu/vmx.cc", "#define LOG_THIS BX_CPU_THIS_PTR", """
// As MOV to CR4 would find it: with LA57 as it is.
#define WITH_LA57_OF_NOW(value) (((value) & ~(Bit64u) BX_CR4_LA57_MASK) | (BX_CPU_THIS_PTR cr4.get32() & BX_CR4_LA57_MASK))
"""),
             *(edit for state in ("guest.", "host_state->") for edit in (
                 swap("cpu/vmx.cc", f"  if (! check_CR4({state}cr4)) {{", f"  if (! check_CR4(WITH_LA57_OF_NOW({state}cr4))) {{"),
                 after("cpu/vmx.cc", f"  BX_CPU_THIS_PTR cr4.set32((Bit32u) {state}cr4);", """
  BX_CPU_THIS_PTR linaddr_width = BX_CPU_THIS_PTR cr4.get_LA57() ? 57 : 48;
"""),
             )),
         )),
    Edit("posted-interrupt-alignment", "The posted-interrupt descriptor is aligned to 64 bytes, not to a page (vol. 3, "
         "27.2.1.1). Without this no VM with an in-kernel irqchip is entered.", KVM, (
             swap("cpu/vmx.cc", "      if (! IsValidPageAlignedPhyAddr(vm->pid_addr)) {",
                  "      if ((vm->pid_addr & 63) != 0 || ! IsValidPhyAddr(vm->pid_addr)) {"),
         )),
    Edit("changed-code-lines", "Traces of a line of code are kept at an index XORed with the fetch mode, of which bit 7 "
         "(AMX) swaps neighbouring lines. Bochs stops looking at the last line written to, and so keeps the traces of "
         "an even line: the kernel's patched code runs as it was.", "changed_code", (
             swap("cpu/icache.h", "    if (line_mask > mask) break;",
                  "    if (line_mask > (mask | ((mask & 0x55555555) << 1))) break;"),
         )),
    Edit("split-traces", "An instruction over two pages is cached by the first one's address and the bytes of both; when "
         "translations change it must go.", "split_code", (
             before("cpu/icache.h", "    if (++traceLinkTimeStamp == 0xffffffff) {", """
    for (unsigned i=0; i<BX_ICACHE_PAGE_SPLIT_ENTRIES; i++) {
      if (pageSplitIndex[i].ppf == BX_ICACHE_INVALID_PHY_ADDRESS) continue;
      pageSplitIndex[i].ppf = BX_ICACHE_INVALID_PHY_ADDRESS;
      flushSMC(pageSplitIndex[i].e);
    }
"""),
         )),
    Edit("ram-image-blocks", "A RAM image is read past the end of the block that was allocated for its address.", LAB, (
        cut("memory/misc_mem.cc", "    ret = read(fd, (bx_ptr_t) BX_MEM_THIS get_vector(offset), size);", "    if (ret <= 0) {", """
    unsigned long rest = BX_MEM_THIS block_size - offset % BX_MEM_THIS block_size;
    ret = read(fd, (bx_ptr_t) BX_MEM_THIS get_vector(offset), size < rest ? size : rest);
"""),
    )),
    Edit("door", "The way out of the machine: door.h.", LAB, (
        after("iodev/unmapped.cc", '#include "unmapped.h"', '\n#include "door.h"\n'),
        after("pc_system.cc", '#include "iodev/iodev.h"', "\n\nvoid machine_nmi()\n{\n  BX_CPU(0)->deliver_NMI();\n}\n"),
        before("iodev/unmapped.cc", "    case 0x80:\n      retval = BX_UM_THIS s.port80;", """
    case Door::kData:
      return door.Get();
    case Door::kWaiting:
      return door.Waiting();
"""),
        before("iodev/unmapped.cc", "    case 0x80: // diagnostic test port to display progress of POST", """
    case Door::kData:
      door.Put((Bit8u) value);
      return;
    case Door::kWaiting:
      door.Flush();
      return;
"""),
    )),
    Edit("end-at-reset", "A guest that resets its machine (panic, reboot) or powers it off ends it at once, with a status.",
         LAB, (
             before("pc_system.cc", "  set_enable_a20(1);\n\n  // Always reset cpu", """
  static bool running = false;
  if (running) machine_ends("the machine was reset from inside", 3);
  running = true;

"""),
             after("pc_system.cc", '#include "bochs.h"', "\nvoid machine_ends(const char *why, int status);\n"),
             after("iodev/unmapped.cc", "#define LOG_THIS theUnmappedDevice->", """
void machine_ends(const char *why, int status)
{
  fprintf(stderr, "%s\\n", why);
  door.End(status);
}
"""),
             before("iodev/acpi.cc", '                BX_FATAL(("ACPI control: soft power off"));', """
                extern void machine_ends(const char *why, int status);
                machine_ends("the machine was powered off from inside", 2);
"""),
             before("cpu/exception.cc", '      if (SIM->get_param_bool(BXPN_RESET_ON_TRIPLE_FAULT)->get()) {', """
      extern void machine_ends(const char *why, int status);
      machine_ends("the machine had a triple fault", 3);
"""),
         )),
    Edit("console", "The serial port's file is a descriptor, which a copy of the machine has another file behind.", LAB, (
        swap("iodev/serial.cc",
             'BX_SER_THIS s[port].output = fopen(BX_SER_THIS s[port].file->getptr(), "wb");',
             'BX_SER_THIS s[port].output = fdopen(atoi(BX_SER_THIS s[port].file->getptr()), "wb");'),
    )),
]
